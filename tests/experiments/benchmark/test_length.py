"""The arithmetic that gives algorithms equal rows and steps."""

from __future__ import annotations

import pytest

from hf_align.errors import UserError
from hf_align.experiments.benchmark.config import Budget
from hf_align.experiments.benchmark.length import length_of
from hf_align.trainers import DPOConfig, OnlineDPOConfig, PPOConfig, SFTConfig

BATCH = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
SAMPLING = {**BATCH, "num_samples": 4, "num_mini_batches": 2}


@pytest.mark.parametrize("budget", [Budget(samples=512, passes=2), Budget(steps=64, passes=2)])
def test_rows_and_steps_are_equal(budget: Budget):
    lengths = [length_of(budget, each, BATCH) for each in (DPOConfig, SFTConfig)]
    lengths += [length_of(budget, each, SAMPLING) for each in (PPOConfig, OnlineDPOConfig)]
    assert [(each.rows, each.steps) for each in lengths] == [(512, 64)] * 4
    assert [each.drawn for each in lengths] == [512, 512, 128, 128]  # four responses to a prompt
    assert [each.rows_after(64) for each in lengths] == [512] * 4
    # A step of pairs begins two passes over 16; a rollout of 32 responses is 4 steps.
    assert [each.rows_after(5) for each in lengths] == [48, 48, 64, 64]
    assert lengths[2].options == {"num_ppo_epochs": 2, "max_steps": 64}
    assert lengths[3].options == {"num_epochs": 2, "max_steps": 64}


def test_own_passes_change_the_steps_and_not_the_rows():
    length = length_of(Budget(samples=512, passes=2), PPOConfig, {**SAMPLING, "num_ppo_epochs": 1})
    assert (length.rows, length.steps) == (512, 32)


def test_without_a_number_of_rows_the_schedule_is_constant():
    length = length_of(Budget(seconds=5.0), DPOConfig, BATCH)
    assert (length.rows, length.drawn) == (None, None)
    assert length.options["lr_scheduler_type"] == "constant"
    with pytest.raises(UserError, match="lr_scheduler_type is linear, which needs the number of steps, and budget has"):
        length_of(Budget(kl=2.0), DPOConfig, {**BATCH, "lr_scheduler_type": "linear"})
    both = length_of(Budget(samples=32, kl=2.0), DPOConfig, {**BATCH, "lr_scheduler_type": "linear"})
    assert both.options == {"max_steps": 2}


def test_rows_that_dont_divide_are_refused():
    with pytest.raises(UserError, match="samples is 40, and a rollout has 32; give a multiple of 32"):
        length_of(Budget(samples=40), PPOConfig, SAMPLING)
    with pytest.raises(UserError, match="samples is 40, and a step takes 16; give a multiple of 16"):
        length_of(Budget(samples=40), DPOConfig, BATCH)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "budget has no limit; give samples, steps, seconds or kl"),
        ({"samples": 1, "steps": 1}, "budget has samples and steps"),
        ({"samples": 0}, "samples is 0; it must be a whole number of at least 1"),
        ({"kl": 0.0}, "kl is 0.0; it must be above 0"),
    ],
)
def test_a_wrong_budget_is_refused(values: dict, message: str):
    with pytest.raises(UserError, match=message):
        Budget(**values)
