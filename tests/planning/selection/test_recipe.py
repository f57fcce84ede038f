"""The first choice as a recipe: its options, changed where they don't fit, and what is still to be given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_align.errors import UserError
from hf_align.planning import Resources, plan_choice
from hf_align.planning.selection.select import Recommendation
from tests.planning.selection.test_select import choose
from tests.planning.test_planner import SHALLOW

LENGTHS = {"longest_prompt": 40, "longest_response": 24}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SHALLOW))
    return str(path)


def first(name: str, **changes: Any) -> Recommendation:
    """A case whose first choice is this one."""
    return choose(lambda features: {name: 1.0}, **LENGTHS, **changes)


def test_the_recipe_has_the_options_of_the_first_choice(config: str) -> None:
    choice = first("cdpo", noise=0.2)
    planned = plan_choice(choice, config, Resources("24GB"), train_dataset="pairs.jsonl")
    values = yaml.safe_load(planned.recipe())
    assert values == {"model": config, "train_dataset": "pairs.jsonl", **choice.hyperparameters}
    assert values["label_smoothing"] == 0.2 and values["max_length"] == 64
    assert planned.recipe("my runs/first.yaml").startswith("# hf-align dpo --config 'my runs/first.yaml'\n")


def test_options_that_take_too_much_are_changed(config: str) -> None:
    """The choice was made by micro-batches of one row; its options begin with two."""
    choice = first("dpo")
    whole = plan_choice(choice, config, Resources("24GB"))
    assert whole.settings.args.per_device_train_batch_size == 2
    values = yaml.safe_load(plan_choice(choice, config, Resources(whole.device_bytes - 1)).recipe())
    given = choice.hyperparameters
    assert values["per_device_train_batch_size"] == 1
    assert values["gradient_accumulation_steps"] == 2 * given["gradient_accumulation_steps"]


def test_a_reward_is_named_where_it_is_used(config: str) -> None:
    sampled = plan_choice(first("rloo"), config, Resources("24GB"), train_dataset="pairs.jsonl").recipe()
    assert "\n# reward: ... is still to be given\n" in sampled
    given = plan_choice(first("dpo", reward="given"), config, Resources("24GB"), reward="mine.py:score").recipe()
    assert "\nreward:" not in given


def test_nothing_to_train_has_no_recipe(config: str) -> None:
    with pytest.raises(UserError, match=r"recipe: best-of-n trains nothing.*hf-align score"):
        plan_choice(first("best-of-n"), config)
