"""Metrics of a report on policies, in the form in which `policy_report` gives them."""

from __future__ import annotations

import copy
from typing import Any

NAN = float("nan")
EACH: dict[str, dict[str, Any]] = {
    "win_rate": {"win_rate": 0.61, "win_rate_interval": [0.55, 0.67], "wins": 120, "ties": 4, "losses": 76},
    "length_controlled": {
        **{"length_controlled": 0.58, "length_controlled_interval": [0.52, 0.64], "length_weight": 0.9},
        **{"length_weight_interval": [0.2, 1.6], "mean_longer": 12.3, "within": True},
    },
    "scores": {"score": 0.31, "score_interval": [0.26, 0.36], "gain": 0.12, "gain_interval": [0.05, 0.19]},
    "kl": {
        "k1": 3.1,
        "k1_interval": [2.6, 3.6],
        "k3": 3.2,
        "k3_interval": [2.9, 3.5],
        "per_token": 0.1,
        "responses": 200,
    },
    "diversity": {
        **{"distinct_1": 0.4, "distinct_2": 0.8, "distinct_3": 0.95, "words": 4000},
        **{"self_repetition": 0.02, "self_repetition_interval": [0.01, 0.03]},
    },
    "length": {
        **{"tokens": 30.0, "tokens_interval": [29.0, 31.0], "gain": 2.0, "gain_interval": [1.0, 3.0]},
        **{"characters": 120.0, "ended": 0.9, "ended_interval": [0.85, 0.95]},
    },
    "lost_ability": {
        **{"tokens": 4000, "nll": 3.5, "nll_interval": [3.4, 3.6], "per_byte": 0.8, "unit": "token"},
        **{"increase": 0.012, "increase_interval": [0.01, 0.014]},
    },
}
ROW: dict[str, Any] = {
    **{"row": 3, "prompt": "Say <b>hi</b>.", "domain": "films", "response": "<script>alert(1)</script> " * 60},
    **{"score": 0.9, "reference_response": "Hm & hm.", "reference_score": -0.2},
}
METRICS: dict[str, Any] = {
    **{key: {"policies": {"me/dpo<1>": each}} for key, each in EACH.items()},
    "best_and_worst": {"me/dpo<1>": {"best": [ROW] * 20, "worst": [{**ROW, "score": -0.9}] * 20}},
    "domains": {
        part: {
            "prompts": 66,
            "policies": {
                "me/dpo<1>": {
                    **{"win_rate": rate, "win_rate_interval": [rate - 0.1, rate + 0.1]},
                    **{"gain": rate - 0.5, "gain_interval": [rate - 0.6, rate - 0.4]},
                }
            },
        }
        for part, rate in (("films", 0.56), ("tweets", 0.66))
    },
}
for _key in ("win_rate", "length_controlled"):
    METRICS[_key]["others"] = {"my judge": {"me/dpo<1>": EACH[_key]}}
for _key in ("scores", "diversity", "length", "lost_ability"):
    _base = {name: value for name, value in EACH[_key].items() if not name.startswith(("gain", "increase", "unit"))}
    METRICS[_key]["policies"] = {"base": _base, **METRICS[_key]["policies"]}
METRICS["lost_ability"] |= {"texts": 200, "source": "given texts", "cut": 2}
METRICS = {key: METRICS[key] for key in (*EACH, "best_and_worst", "domains")}
FACTS: dict[str, Any] = {
    **{"policies": ["base", "me/dpo<1>"], "labels": {"base": "base", "me/dpo<1>": "dpo<1>"}, "reference": "base"},
    **{"judge": "VADER", "judges": ["VADER", "my judge"], "prompts": 200, "units": 198, "max_new_tokens": 64},
    **{"resamples": 2000, "seed": 0, "human_text": "given texts", "quantization": None, "missing": {}},
    **{"processor": "2 CPU cores", "versions": {"torch": "2.13.0"}, "data": "prompts.jsonl"},
    "command": "hf-align evaluate policy --model base --model me/dpo<1>",
}
REMARKS = [("cut", "20% of the responses of base were cut at 64 tokens.")]


def metrics(**sections: Any) -> dict[str, Any]:
    """The metrics with figures of the compared policy updated; None makes a section empty."""
    result = copy.deepcopy(METRICS)
    for name, figures in sections.items():
        if isinstance(figures, dict) and name in EACH:
            result[name]["policies"]["me/dpo<1>"].update(figures)
        else:
            result[name] = figures
    return result
