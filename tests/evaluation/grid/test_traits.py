"""What an algorithm with its options is, and what it needs."""

from __future__ import annotations

from typing import Any

import pytest

from hf_align.evaluation.grid.traits import method_of, needs_of


@pytest.mark.parametrize(
    ("algorithm", "options", "method", "needed"),
    [
        ("dpo", {}, "dpo", {"reference"}),
        ("dpo", {"label_smoothing": 0.1}, "cdpo", {"reference"}),
        ("dpo", {"loss_type": "simpo"}, "simpo", set()),
        ("dpo", {"loss_type": ["sigmoid", "sft"]}, "sigmoid+sft", {"reference"}),
        ("ipo", {}, "ipo", {"reference"}),
        ("sft", {}, "sft", set()),
        ("online-dpo", {"loss_type": "ipo"}, "online-ipo", {"reward_model", "reference", "online"}),
        ("ppo", {}, "ppo", {"reward_model", "reference", "online", "value"}),
        ("ppo", {"baseline": "group"}, "rloo", {"reward_model", "reference", "online"}),
        ("ppo", {"baseline": "group", "group_scaling": True}, "grpo", {"reward_model", "reference", "online"}),
        ("ppo", {"baseline": "none"}, "reinforce", {"reward_model", "reference", "online"}),
        ("best-of-n", {"n": [1, 2]}, "best-of-n", {"reward_model"}),
        (
            "hybrid",
            {"stages": [{"algorithm": "dpo"}, {"algorithm": "ppo", "baseline": "group"}]},
            "hybrid",
            {"reward_model", "reference", "online"},
        ),
    ],
)
def test_methods_and_needs(algorithm: str, options: dict[str, Any], method: str, needed: set[str]) -> None:
    assert method_of(algorithm, options) == method
    assert {name for name, needs in needs_of(algorithm, options).items() if needs} == needed


def test_what_isnt_known_is_unknown() -> None:
    assert set(needs_of("theirs", {}).values()) == {None} == set(needs_of("hybrid", {}).values())
