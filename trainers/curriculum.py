"""Curriculum: stages of training that each take the easiest rows so far, with their own passes, batches and rate.

Stage s of S trains on the easiest s/S of the rows, so the last one on all (Bengio et al., 2009, "Curriculum Learning").
Every step has the same number of rows within a stage: the last one is filled with rows of one more pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import ceil
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from hf_align.errors import UserError
from hf_align.fields import as_written
from hf_align.numbers import number_problem
from hf_align.trainers.arguments.learning import BY_EVALUATIONS

WITHOUT = {
    "auto_find_batch_size": False,
    "ignore_data_skip": False,
    "restore_callback_states_from_checkpoint": False,
    "dataloader_drop_last": False,
    "train_sampling_strategy": "random",
}
"""Options that a curriculum leaves no room for, with their defaults."""


@dataclass(frozen=True)
class Curriculum:
    """A run's stages.

    Attributes:
        stages: Their number.
        difficulty: What makes a row hard: a column of numbers (higher = harder), "margin" (smaller = harder), "length"
            (tokens of prompt and responses), a function of a row, or a reward model (responses that it ranks wrongly,
            or with a small difference).
        epochs: Passes over its rows for each stage, or one number for all.
        batch: Rows per device for each stage, or one number. None: `per_device_train_batch_size`.
        lr_decay: The learning rate of stage s is multiplied by lr_decay ** (s - 1).
        fresh_optimizer: Whether the optimizer's state (momentum and so on) is dropped at the start of a stage.

    Example:
        >>> from hf_align.trainers.curriculum import read_curriculum
        >>> read_curriculum({"stages": 2, "epochs": [1, 3]}, batch=8).batch
        (8, 8)
    """

    stages: int
    difficulty: str | Callable[[Mapping[str, Any]], float] | Any
    epochs: tuple[float, ...]
    batch: tuple[int, ...]
    lr_decay: float
    fresh_optimizer: bool

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it; a function or model by its name."""
        by = self.difficulty
        name = by if isinstance(by, str) else getattr(by, "__name__", type(by).__name__)
        shown = {"epochs": list(self.epochs), "batch": list(self.batch), "difficulty": name}
        return {each.name: shown.get(each.name, getattr(self, each.name)) for each in fields(self)}


def read_curriculum(values: Mapping[str, Any], *, batch: int) -> Curriculum:
    """Read `RewardConfig.curriculum`.

    Args:
        values: Any of the attributes of `Curriculum`; by default 3 stages by margin, one pass each, no decay, one
            optimizer throughout.
        batch: Rows per device where it names none.

    Raises:
        UserError: A key is unknown, or a value is no such number.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"curriculum is {values!r}; give a mapping, such as {{'stages': 3, 'difficulty': 'margin'}}.")
    known = [each.name for each in fields(Curriculum)]
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
            raise UserError(f"curriculum has no {key}; {meant}")
    stages, decay, fresh = (values.get(key, default) for key, default in _DEFAULTS.items())
    if isinstance(stages, bool) or not isinstance(stages, int) or stages < 1:
        raise UserError(f"curriculum: stages is {stages!r}; give a whole number of at least 1.")
    if number_problem(decay) or decay <= 0:
        raise UserError(f"curriculum: lr_decay is {decay!r}; give a number above 0, such as 0.5.")
    if not isinstance(fresh, bool):
        raise UserError(f"curriculum: fresh_optimizer is {fresh!r}; give true or false.")
    difficulty = values.get("difficulty", "margin")
    if not (isinstance(difficulty, str) or callable(difficulty) or hasattr(difficulty, "score_ids")):
        raise UserError(
            f"curriculum: difficulty is {difficulty!r}; give a column, 'margin', 'length', a function of a row, or a "
            "reward model."
        )
    epochs = _of_stages(values.get("epochs", 1), stages, "epochs", whole=False)
    given = values.get("batch")
    batches = _of_stages(batch if given is None else given, stages, "batch", whole=True)
    return Curriculum(stages, difficulty, epochs, batches, float(decay), fresh)


_DEFAULTS = {"stages": 3, "lr_decay": 1.0, "fresh_optimizer": False}


def _of_stages(value: Any, stages: int, name: str, *, whole: bool) -> tuple[Any, ...]:
    """A number for each stage, from a list or one number for all."""
    numbers = list(value) if isinstance(value, list | tuple) else [value] * stages
    if len(numbers) != stages:
        raise UserError(f"curriculum: {name} has {len(numbers)} numbers for {stages} stages; give one for each.")
    for number in numbers:
        if number_problem(number) or number <= 0 or (whole and not isinstance(number, int)):
            kind = "whole number of at least 1" if whole else "number above 0"
            raise UserError(f"curriculum: {name} has {number!r}; give a {kind}.")
    return tuple(numbers)


def check_with_curriculum(args: Any) -> None:
    """Refuse options that contradict a curriculum, and count its run as one epoch.

    Raises:
        UserError: Names the option.
    """
    curriculum = read_curriculum(args.curriculum, batch=args.per_device_train_batch_size)
    if args.max_steps > 0:
        raise UserError(
            f"max_steps is {args.max_steps}, and a curriculum takes as many steps as its stages' epochs; leave it out."
        )
    default = type(args).__dataclass_fields__["num_train_epochs"].default
    if args.num_train_epochs not in (default, 1):
        raise UserError(
            f"num_train_epochs is {args.num_train_epochs:g}, and a curriculum has its own epochs for each stage; leave "
            "it out."
        )
    for name, value in WITHOUT.items():
        if getattr(args, name) != value:
            raise UserError(f"{name} is {getattr(args, name)!r}, which a curriculum can't follow; leave it out.")
    schedule = as_written(args.lr_scheduler_type)
    if curriculum.lr_decay != 1 and schedule in BY_EVALUATIONS:
        raise UserError(
            f"lr_scheduler_type {schedule!r} sets the rate by evaluations, not by stages; leave "
            "lr_decay out of the curriculum."
        )
    args.num_train_epochs = 1.0


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        rows: Number of its rows, the easiest ones.
        batch: Rows of a micro-batch of one process.
        step_rows: Rows of a step, over all micro-batches and processes.
        first: Number of its first step in the run.
        steps: Its steps.
    """

    rows: int
    batch: int
    step_rows: int
    first: int
    steps: int

    @property
    def passes(self) -> int:
        """Passes over its rows that it begins."""
        return ceil(self.steps * self.step_rows / self.rows)


@dataclass(frozen=True)
class Schedule:
    """What each step of a run trains on.

    Attributes:
        stages: In their order.
        accumulation: Micro-batches of a step.
        processes: Processes that share a step.
    """

    stages: tuple[Stage, ...]
    accumulation: int
    processes: int

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return sum(stage.steps for stage in self.stages)

    @property
    def rows_drawn(self) -> int:
        """Rows that the run trains on, each as often as it does."""
        return sum(stage.steps * stage.step_rows for stage in self.stages)

    def stage_of(self, step: int) -> int:
        """Number of the stage of a step, from 0; steps behind the end belong to the last."""
        return max(number for number, stage in enumerate(self.stages) if stage.first <= step)

    def pass_of(self, step: int) -> int:
        """Number of the pass that a step begins in, from 0, over all stages."""
        number = self.stage_of(step)
        stage = self.stages[number]
        return sum(each.passes for each in self.stages[:number]) + (step - stage.first) * stage.step_rows // stage.rows


def check_rows(curriculum: Curriculum, rows: int) -> None:
    """Refuse a data set of fewer rows than there are stages."""
    if rows < curriculum.stages:
        raise UserError(f"curriculum: {curriculum.stages} stages need as many rows, and train_dataset has {rows}.")


def make_schedule(curriculum: Curriculum, rows: int, *, accumulation: int, processes: int) -> Schedule:
    """Lay out a curriculum's steps over so many rows.

    Raises:
        UserError: There are fewer rows than stages.
    """
    check_rows(curriculum, rows)
    stages: list[Stage] = []
    for number, (epochs, batch) in enumerate(zip(curriculum.epochs, curriculum.batch, strict=True), start=1):
        count, step_rows = ceil(rows * number / curriculum.stages), batch * accumulation * processes
        first = stages[-1].first + stages[-1].steps if stages else 0
        stages.append(Stage(count, batch, step_rows, first, ceil(round(epochs * count / step_rows, 9))))
    return Schedule(tuple(stages), accumulation, processes)


class CurriculumSampler(Sampler[list[int]]):
    """Micro-batches of one process for a whole run; the same ones whenever it is asked.

    Args:
        schedule: The run's.
        order: Numbers of all rows, easiest first.
        process: Number of the process.
        seed: Seed of the order within a stage; each pass has another.
    """

    def __init__(self, schedule: Schedule, order: np.ndarray, *, process: int, seed: int) -> None:
        self.schedule, self.order, self.process, self.seed = schedule, order, process, seed

    def __len__(self) -> int:
        return self.schedule.steps * self.schedule.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for number, stage in enumerate(self.schedule.stages):
            passes = [
                np.random.default_rng([self.seed, number, each]).permutation(self.order[: stage.rows])
                for each in range(stage.passes)
            ]
            drawn = np.concatenate(passes)[: stage.steps * stage.step_rows]
            shape = (stage.steps * self.schedule.accumulation, self.schedule.processes, stage.batch)
            yield from drawn.reshape(shape)[:, self.process].tolist()
