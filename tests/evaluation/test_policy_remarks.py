"""Remarks on responses that void figures, without any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hf_align.evaluation.continuations import Continuation
from hf_align.evaluation.policy_inputs import Asked
from hf_align.evaluation.policy_remarks import remarks_on_policies, training_rewards
from hf_align.evaluation.win_rate import measure_length_controlled, measure_win_rate
from hf_align.evaluation.writing import Written
from hf_align.report.remarks import few_units
from hf_align.statistics import Resampling


def kinds(
    folder: str, texts: dict[str, list[str]], scores: dict[str, list[float]], ended: bool = True, others: Any = None
) -> list[str]:
    """Kinds of the remarks on policies "base" and "dpo", both with the tokenizer in `folder`."""
    names = {"base": folder, "dpo": f"{folder}/."}
    count = len(texts["base"])
    asked = Asked([[{"role": "user", "content": "a"}]] * count, [{}] * count, ["all"] * count, {}, np.arange(count))
    written = {
        names[label]: Written([Continuation(text, 3, ended) for text in each], [], [], [], "CPU")
        for label, each in texts.items()
    }
    given = {names[label]: each for label, each in scores.items()}
    lengths = {names[label]: [len(text) for text in each] for label, each in texts.items()}
    resampling, unit = Resampling(count, resamples=10), np.arange(count)
    metrics: dict[str, Any] = {
        "win_rate": {"policies": measure_win_rate(given, folder, resampling, unit)},
        "length_controlled": {"policies": measure_length_controlled(given, folder, lengths, resampling, unit)},
    }
    facts = {"reference": folder, "labels": {name: label for label, name in names.items()}, "units": count, "pairs": {}}
    judges = {"judge": given} | (others or {})
    remarks = remarks_on_policies(asked, written, judges, metrics, facts | {"max_new_tokens": 3})
    return [remark.kind for remark in remarks]


def test_each_remark_has_its_occasion(tiny_model_dir: str) -> None:
    count = 40
    base, dpo = ["a b"] * count, ["a c", "a"] * (count // 2)
    up, down = [1.0, 0.0] * (count // 2), [0.0, 1.0] * (count // 2)
    assert kinds(tiny_model_dir, {"base": base, "dpo": dpo}, {"base": up, "dpo": down}) == []
    assert kinds(tiny_model_dir, {"base": base, "dpo": dpo}, {"base": up, "dpo": down}, ended=False) == ["cut"]
    assert kinds(tiny_model_dir, {"base": base, "dpo": base}, {"base": up, "dpo": down}) == ["identical"]
    ties = kinds(tiny_model_dir, {"base": base, "dpo": dpo}, {"base": up, "dpo": [*up[:20], *down[20:]]})
    assert ties == ["ties"]
    longer = kinds(tiny_model_dir, {"base": base, "dpo": ["a b c", "a b c d"] * 20}, {"base": up, "dpo": down})
    assert longer == ["extrapolated"]
    constant = kinds(tiny_model_dir, {"base": base, "dpo": dpo}, {"base": [2.0] * count, "dpo": [2.0] * count})
    assert constant == ["constant_scores"]
    of_no_use = {"another": {tiny_model_dir: [2.0] * count}}
    another = kinds(tiny_model_dir, {"base": base, "dpo": dpo}, {"base": up, "dpo": down}, others=of_no_use)
    assert another == ["another_constant"], "and the first judge's sections stand"
    few = kinds(tiny_model_dir, {"base": base[:4], "dpo": dpo[:4]}, {"base": up[:4], "dpo": down[:4]})
    assert few == ["few_units"]
    assert few_units(1, "prompts").sentence == "With 1 prompt the bootstrap's intervals are too narrow."
    assert few_units(2, "texts").sentence == "With 2 texts the bootstrap's intervals are too narrow."


def test_facts_that_something_else_wrote_name_no_reward(tmp_path: Path) -> None:
    for text in ("{", "{}", '{"facts": {"rewards": {}}}'):
        (tmp_path / "model_card.json").write_text(text)
        assert training_rewards(str(tmp_path)) == {}
