"""Metrics of a report on a reward model, in the form in which `reward_report` gives them."""

from __future__ import annotations

import copy
from typing import Any

NAN = float("nan")
CHANGES = {
    **{"typos": 0.031, "upper case": 0.052, "lower case": 0.004, "no punctuation": 0.012, "double spaces": 0.0},
    **{"quoted": -0.006, "filler": 0.018, "truncated": 0.024, "line breaks": 0.002, "paraphrase": 0.04},
}
TABLE: dict[str, Any] = {
    **{"ece": 0.062, "ece_floor": 0.021, "ece_floor_high": 0.029},
    **{"brier": 0.17, "brier_interval": [0.16, 0.18], "brier_floor": 0.107},
    **{"nll": 0.52, "nll_interval": [0.49, 0.55], "nll_floor": 0.33},
    "bins": [
        {
            **{"low": n / 10, "high": (n + 1) / 10, "pairs": 400, "predicted": n / 10 + 0.05},
            **{"observed": 0.5 + 0.8 * (n / 10 - 0.45), "expected": [n / 10, n / 10 + 0.1]},
        }
        for n in range(10)
    ],
}
METRICS: dict[str, Any] = {
    "accuracy": {
        **{"pairs": 4812, "undecided": 188, "equal_scores": 3, "prompts": 212},
        **{"accuracy": 0.812, "accuracy_interval": [0.79, 0.83], "margin": 0.9, "margin_interval": [0.85, 0.95]},
        **{"vote_agreement": 0.84, "vote_agreement_interval": [0.83, 0.85]},
        **{"by_prompt": 0.8, "by_prompt_interval": [0.78, 0.82]},
    },
    "tau": {
        **{"tau": 0.62, "tau_interval": [0.58, 0.66], "rankings": 200},
        **{"constant_scores": 2, "constant_people": 1, "constant_prompts": [4, 9]},
    },
    "calibration": {
        **{"pairs": 5000, "soft_labels": True, "raw": TABLE, "fitted": {**TABLE, "ece": 0.024}},
        "temperature": {"value": 1.8, "halves": [1.7, 1.9], "at_limit": False, "judged_pairs": 2500},
    },
    "robustness": {
        **{"texts": 400, "pairs": 900, "accuracy": 0.81, "worst": "upper case", "mean_drop": 0.0177},
        "changes": [
            {
                **{"name": name, "unchanged": 12, "accuracy": 0.81 - drop},
                **{"drop": drop, "drop_interval": [drop - 0.01, drop + 0.01]},
                **{"one_sided_drop": 1.4 * drop, "one_sided_drop_interval": [drop, 2 * abs(drop)]},
                **{"shift": -2 * drop, "shift_interval": [-0.2, 0.1], "absolute_shift": 0.2},
            }
            for name, drop in CHANGES.items()
        ],
        "layouts": [
            {"name": "alone", "texts": 32, "largest_difference": 2e-6},
            {"name": "padding_side", "texts": 32, "largest_difference": 0.0},
        ],
    },
    "length": {
        **{"reward": 0.11, "reward_interval": [0.07, 0.15], "people": 0.02, "people_interval": [-0.01, 0.05]},
        **{"excess": 0.09, "excess_interval": [0.05, 0.13], "mean_length": 84.0},
        "longer_wins": {"pairs": 4700, "people": 0.51, "reward": 0.55},
        "parts": [
            {
                **{"low": 40.0 * n - 100, "high": 40.0 * n - 61, "pairs": 960},
                **{"accuracy": 0.76 + 0.02 * n, "accuracy_interval": [0.72 + 0.02 * n, 0.8 + 0.02 * n]},
            }
            for n in range(5)
        ],
    },
    "subsets": {
        "subsets": [
            {
                **{"name": name, "pairs": 1600, "units": 80, "accuracy": value},
                "accuracy_interval": [value - 0.03, value + 0.03],
            }
            for name, value in (("movies", 0.76), ("products", 0.82), ("tweets", 0.86))
        ],
        **{"worst": "movies", "mean": 0.813},
    },
    "best_of_n": {
        **{"gold": "judge", "prompts": 200, "responses": 16, "left_out": 3},
        "curve": [
            {"n": 2**k, "kl": 0.4 * k, "gold": 0.2 + 0.12 * k, "gold_interval": [0.15 + 0.12 * k, 0.25 + 0.12 * k]}
            | {"possible": 0.2 + 0.18 * k, "share": 0.66 if k else None}
            for k in range(5)
        ],
    },
    "worst_rows": [
        {
            **{"rows": [n, n], "prompt": "Say something about <b>films</b>.", "better": "Good & short.", "subset": "a"},
            **{"worse": "<script>alert(1)</script> " * 60, "better_score": -1.2, "worse_score": 2.5, "label": 0.97},
            **{"better_human": 2.5, "worse_human": None, "better_length": 13.0, "worse_length": 1500.0},
        }
        for n in range(20)
    ],
}
UNCERTAINTY: dict[str, Any] = {
    **{"members": 4, "passes": 10, "pairs": 4812, "errors": 905, "error": 0.188, "equal_scores": 3},
    "measures": [
        {
            **{"name": name, "auroc": value, "auroc_interval": [value - 0.02, value + 0.02]},
            **{"gain": None if name == "difference" else value - 0.68},
            **{"gain_interval": None if name == "difference" else [value - 0.7, value - 0.66]},
            **{"top_error": 0.41, "top_error_interval": [0.37, 0.45]},
            **{"rest_error": 0.16, "rest_error_interval": [0.15, 0.17], "ratio": 2.5, "ratio_interval": [2.2, 2.8]},
        }
        for name, value in (
            *(("difference", 0.68), ("std", 0.61), ("entropy", 0.72), ("variance_ratio", 0.66)),
            ("mc_dropout", 0.74),
        )
    ],
}
"""Of an ensemble's report; a single model's has none."""
FACTS: dict[str, Any] = {
    **{"layout": "pairs", "rows": 5000, "prompts": 212, "responses": 10000, "texts": 9000, "pairs": 5000},
    **{"across_prompts": False, "unit": "prompts", "units": 212, "resamples": 2000, "seed": 0, "skipped": {}},
    **{"model": "me/reward<1>", "data": "rows.jsonl", "template": "the tokenizer's chat template"},
    **{"processor": "2 CPU cores", "versions": {"torch": "2.13.0"}, "judge": "vader", "length_unit": "tokens"},
    "command": "hf-align evaluate reward --model me/reward<1> --data rows.jsonl",
}
REMARKS = [("across_prompts", "Pairs cross prompts; a reward model is trained to order responses to one prompt.")]


def metrics(**sections: Any) -> dict[str, Any]:
    """The metrics with these sections updated; None makes one empty."""
    result = copy.deepcopy(METRICS)
    for name, figures in sections.items():
        result[name] = {**result[name], **figures} if isinstance(figures, dict) else figures
    return result
