"""How long an algorithm trains under a budget of rows or steps: the arithmetic that makes runs comparable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hf_align.errors import UserError
from hf_align.experiments.benchmark.config import Budget

MOST_STEPS = 100_000
"""Steps of a training whose length only its time or KL limits."""
CONSTANT = ("constant", "constant_with_warmup")
"""Schedules that don't depend on the number of steps."""


@dataclass(frozen=True)
class Length:
    """The length of a training.

    Attributes:
        options: Options of its trainer that set it.
        rows: Rows to draw, of which a row of prompts stands for `per_row` responses. None: all that there are.
        steps: Optimizer steps at most.
        group_rows: Rows that are trained on together: a step's, or a rollout's responses.
        group_steps: Steps on them: the passes over a step's rows, or a rollout's steps.
        per_row: Responses sampled to each prompt; 1 where nothing is sampled.
    """

    options: dict[str, Any]
    rows: int | None
    steps: int
    group_rows: int
    group_steps: int
    per_row: int = 1

    def rows_after(self, steps: int) -> int:
        """Rows, or sampled responses, that so many steps have trained on."""
        return math.ceil(steps / self.group_steps) * self.group_rows

    @property
    def drawn(self) -> int | None:
        """Rows of the data to draw: pairs, demonstrations or prompts."""
        return None if self.rows is None else math.ceil(self.rows / self.per_row)


def length_of(budget: Budget, config_class: type, options: Mapping[str, Any]) -> Length:
    """How long an algorithm trains.

    A step takes B = per_device_train_batch_size x gradient_accumulation_steps rows. For S rows, each seen P times, that
    are P S / B steps, of an algorithm that samples too: its rollouts have M B responses for M mini-batches, and P M
    steps. A budget of T steps is one of T B / P rows.

    Args:
        budget: The budget.
        config_class: The trainer's config.
        options: Its options that were given.

    Raises:
        UserError: The rows don't divide into whole steps or rollouts, or a schedule needs a number of steps and there
            is none.

    Example:
        >>> from hf_align import DPOConfig, PPOConfig
        >>> from hf_align.experiments.benchmark.config import Budget
        >>> from hf_align.experiments.benchmark.length import length_of
        >>> budget, options = Budget(samples=512, passes=2), {"per_device_train_batch_size": 16}
        >>> length_of(budget, DPOConfig, options).steps
        64
        >>> length_of(budget, PPOConfig, {**options, "num_mini_batches": 2, "num_samples": 4}).steps
        64
    """
    defaults = {each.name: each.default for each in fields(config_class)}

    def value(name: str) -> Any:
        return options.get(name, defaults[name])

    batch = value("per_device_train_batch_size") * value("gradient_accumulation_steps")
    epochs_option = getattr(config_class, "epochs_option", None)
    passes, group, per_row, set_here = budget.passes, batch, 1, {}
    if epochs_option is not None:  # it samples
        passes = options.get(epochs_option, passes)
        group, per_row = batch * value("num_mini_batches"), value("num_samples")
        set_here[epochs_option] = passes
    steps_per_group = passes * group // batch
    if budget.samples is not None:
        if budget.samples % group:
            what = "a rollout has" if epochs_option else "a step takes"
            raise UserError(
                f"budget: samples is {budget.samples}, and {what} {group}; give a multiple of {group}, or another "
                "per_device_train_batch_size"
            )
        rows, steps = budget.samples, budget.samples // group * steps_per_group
    elif budget.steps is not None:
        rows, steps = math.ceil(budget.steps / steps_per_group) * group, budget.steps
    else:
        rows, steps = None, MOST_STEPS
        schedule = options.get("lr_scheduler_type", CONSTANT[0])
        if schedule not in CONSTANT:
            raise UserError(
                f"lr_scheduler_type is {schedule}, which needs the number of steps, and budget has only "
                f"{' and '.join(budget.limits)}; use {' or '.join(CONSTANT)}, or add samples or steps to the budget"
            )
        set_here["lr_scheduler_type"] = schedule
    return Length({**set_here, "max_steps": steps}, rows, steps, group, steps_per_group, per_row)
