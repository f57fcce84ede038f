"""What each algorithm of a grid trains with: its options under the budget, checked by its own recipe's rules."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_align.algorithms import ALGORITHMS, Algorithm
from hf_align.errors import LoadError, UserError
from hf_align.experiments.benchmark.config import Budget
from hf_align.experiments.benchmark.grid import BEST_OF_N, HYBRID, AlgorithmEntry, DataEntry, Grid
from hf_align.experiments.benchmark.length import Length, length_of
from hf_align.experiments.recipe import Recipe, check_values, field_hints
from hf_align.experiments.run import Run, prepare
from hf_align.trainers.hybrid.config import DEFAULT_STAGES

OWNED = (
    *("output_dir", "seed", "data_seed", "max_steps", "num_train_epochs", "total_episodes", "resume_from_checkpoint"),
    *("eval_strategy", "eval_on_start", "load_best_model_at_end", "metric_for_best_model", "early_stopping_patience"),
    *("stop_on_over_optimization", "push_to_hub", "model", "train_dataset", "eval_dataset", "reward", "ref_model"),
    *("lora", "quantization", "prepare", "augment", "eval_judge"),
)
"""Options that the benchmark sets, or that would make runs unequal."""
OF_STAGE: dict[str, Any] = {
    "algorithm": str,
    "share": float,
    "reference": str | None,
    "adapter": str,
    "until": dict | None,
}
OF_BEST_OF_N: dict[str, Any] = {"n": list[int]}
DEFAULT_N = [1, 2, 4, 8, 16]
CHECKPOINTS = 4
"""Checkpoints of a training, of which the last one is kept until it is finished."""
LOGS = 64


@dataclass(frozen=True)
class Training:
    """One training of a run, or of a stage of one.

    Attributes:
        algorithm: The algorithm.
        options: Options of its config, with those that the budget sets; without `output_dir` and `seed`.
        length: How long it is.
        judge: Its judge of pairs, where it is trained by one.
        stage: Keys that it has as a stage of a hybrid: `reference`, `adapter`, `until`.
        seconds: A stage's limit of time.
    """

    algorithm: Algorithm
    options: dict[str, Any]
    length: Length
    judge: Any
    stage: dict[str, Any]
    seconds: float | None = None

    @property
    def by_reward(self) -> bool:
        """Whether it is trained by a reward."""
        return bool({"reward", "label"} & set(self.algorithm.needs)) and self.judge is None

    def recipe(self, model: str, folder: Path, seed: int, lora: Any, quantization: Any, reward: Any) -> Recipe:
        """The recipe that the algorithm's own command would get."""
        values = {"model": model, "train_dataset": str(folder), "output_dir": str(folder), "seed": seed}
        values |= {"lora": (lora or True) if lora is not None else None, "quantization": quantization}
        if self.by_reward:
            values["reward"] = reward
        elif self.judge is not None:
            values["judge"] = self.judge
        return Recipe({**self.options, **{key: value for key, value in values.items() if value is not None}})


@dataclass(frozen=True)
class Trainings:
    """What a run of an algorithm on a data set trains.

    Attributes:
        kind: "train", "hybrid" or "best-of-n".
        parts: The one training, the stages of a hybrid, or nothing.
        numbers: The n of best-of-n, ascending.
        penalty: Of best-of-n: subtracted from the score of a response that the length limit cut.
    """

    kind: str
    parts: tuple[Training, ...]
    numbers: tuple[int, ...] = ()
    penalty: float = 0.0

    @property
    def needs_reward(self) -> bool:
        """Whether a reward must be there."""
        return self.kind == BEST_OF_N or any(each.by_reward for each in self.parts)

    @property
    def rows(self) -> int | None:
        """Rows of the budget in all, or None where only time or KL limits them."""
        rows = [each.length.rows for each in self.parts]
        return None if None in rows else sum(each for each in rows if each is not None)


@contextmanager
def at(label: str) -> Iterator[None]:
    """Name the run in a `UserError`."""
    try:
        yield
    except LoadError as error:
        raise LoadError(f"{label}: {error}", error.source) from error
    except UserError as error:
        if str(error).startswith(label) or ", line " in str(error).split(":")[0]:
            raise
        raise UserError(f"{label}: {error}") from error


def trainings_of(grid: Grid, entry: AlgorithmEntry, data: DataEntry) -> Trainings:
    """Decide and check what the runs of an algorithm on a data set train.

    Raises:
        UserError: The algorithm or an option is unknown or wrong, or doesn't fit the budget.
    """
    path = f"algorithms.{entry.label}"
    if entry.algorithm == BEST_OF_N:
        return _best_of_n(grid, entry, path)
    if entry.algorithm != HYBRID:
        with at(path):
            part = _training(grid, _algorithm(entry.algorithm), grid.recipe.below(path, entry.options), data.budget)
        return Trainings("train", (part,))
    stages = entry.options.get("stages", list(DEFAULT_STAGES))
    if not isinstance(stages, list) or not stages:
        raise UserError(
            f"{grid.recipe.where(f'{path}.stages')} is a list of stages, such as [dpo, ppo], not {stages!r}"
        )
    for key in entry.options:
        if key != "stages":
            raise UserError(f"{grid.recipe.where(f'{path}.{key}')} is no key of a hybrid; give it to its stages")
    entries = []
    for number, stage in enumerate(stages, start=1):
        values = {"algorithm": stage} if isinstance(stage, str) else stage
        if not isinstance(values, dict) or not isinstance(values.get("algorithm"), str):
            raise UserError(f"{path}: stage {number} has no algorithm; write `- algorithm: dpo`")
        own = {key: value for key, value in values.items() if key in OF_STAGE}
        own = check_values(grid.recipe.below(f"{path}.stages.{number}", own), OF_STAGE, tuple(OF_STAGE))
        if not own.setdefault("share", 1.0) > 0:
            raise UserError(f"{grid.recipe.where(f'{path}.stages.{number}.share')} is {own['share']}; give more than 0")
        entries.append((own, {key: value for key, value in values.items() if key not in OF_STAGE}))
    whole, parts = sum(own["share"] for own, _ in entries), []
    for number, (own, options) in enumerate(entries, start=1):
        with at(f"{path}: stage {number}"):
            budget = _share(data.budget, own["share"] / whole)
            stage_recipe = grid.recipe.below(f"{path}.stages.{number}", options)
            part = _training(grid, _algorithm(own["algorithm"]), stage_recipe, budget)
            of_stage = {key: value for key, value in own.items() if key not in ("algorithm", "share")}
            parts.append(replace(part, stage=of_stage, seconds=budget.seconds))
    return Trainings(HYBRID, tuple(parts))


def check_common(grid: Grid) -> None:
    """Refuse options of all algorithms that no algorithm has, whether the grid names it or not.

    Raises:
        UserError: Names the option, and one that may be meant.
    """
    ours = {name for name, each in ALGORITHMS.builtin.items() if each.trains == "policy"}
    named = {name for entry in grid.algorithms.values() for name in _names(entry) if name in ALGORITHMS}
    hints: dict[str, Any] = {}
    for name in sorted(ours | named):
        hints |= field_hints(ALGORITHMS[name].load()[1])
    check_values(grid.recipe.below("options", grid.options), hints, tuple(hints))
    for key in grid.options:
        _check_owned(key, grid.recipe.where(f"options.{key}"))


def _names(entry: AlgorithmEntry) -> list[str]:
    stages = entry.options.get("stages", DEFAULT_STAGES) if entry.algorithm == HYBRID else [entry.algorithm]
    names = [each.get("algorithm") if isinstance(each, Mapping) else each for each in stages or ()]
    return [name for name in names if isinstance(name, str)]


def _algorithm(name: str) -> Algorithm:
    if name in ALGORITHMS and ALGORITHMS[name].trains == "policy":
        return ALGORITHMS[name]
    known = [*(each for each in ALGORITHMS.builtin.values() if each.trains == "policy")]
    names = [*(each.name for each in known), *ALGORITHMS.third_party, HYBRID, BEST_OF_N]
    if name in ALGORITHMS:
        raise UserError(f"{name} trains a reward model, not a policy; use {', '.join(names)}")
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(names)}"
    raise UserError(f"there is no algorithm {name}; {hint}")


def _check_owned(key: str, place: str) -> None:
    if key in OWNED:
        raise UserError(f"{place} is set by the benchmark for all runs alike; leave it out")


def _training(grid: Grid, algorithm: Algorithm, own: Recipe, budget: Budget) -> Training:
    """One training: the options of the grid that the algorithm has, its own, and what the budget makes of them."""
    config_class = algorithm.load()[1]
    hints = field_hints(config_class)
    for key in own.values:
        _check_owned(key, own.where(key))
    judge = own.values.get("judge") if "label" in algorithm.needs else None
    without_judge = Recipe(
        {key: value for key, value in own.values.items() if key != "judge" or judge is None}, own.places
    )
    given = check_values(without_judge, hints, tuple(hints))
    common = check_values(
        grid.recipe.below("options", {key: value for key, value in grid.options.items() if key in hints}), hints, ()
    )
    options: dict[str, Any] = {"report_to": "none", "save_total_limit": 1, "save_strategy": "steps"}
    if "max_new_tokens" in hints:
        options["max_new_tokens"] = grid.config.max_new_tokens
    options |= {**common, **given}
    length = length_of(budget, config_class, options)
    every = max(1, min(length.steps, 50 * CHECKPOINTS) // CHECKPOINTS)
    logs = max(1, min(length.steps, 10 * LOGS) // LOGS)
    spacing = {"save_steps": every, "logging_steps": logs}
    options = {**{key: value for key, value in spacing.items() if key not in options}, **options, **length.options}
    if budget.kl is not None and grid.lora is None:
        raise UserError("the budget limits the KL from the base, which is the model without its adapter; give lora")
    return Training(algorithm, options, length, judge, {})


def _share(budget: Budget, share: float) -> Budget:
    """A stage's share of the rows, steps or seconds of a budget; the KL is limited over all stages."""
    shares: dict[str, Any] = {}
    for name in ("samples", "steps"):
        if (value := getattr(budget, name)) is not None:
            shares[name] = round(value * share)
            if abs(shares[name] - value * share) > 1e-6 or not shares[name]:
                raise UserError(
                    f"budget: {name} is {value}, and the stage's share of it is {value * share:g}; give its stages "
                    "shares (`share: 2`) that make whole numbers"
                )
    if budget.seconds is not None:
        shares["seconds"] = budget.seconds * share
    return replace(budget, **shares)


def _best_of_n(grid: Grid, entry: AlgorithmEntry, path: str) -> Trainings:
    """The numbers of best-of-n, and the penalty that algorithms which sample have, too."""
    options = {key: value for key, value in entry.options.items() if key != "missing_eos_penalty"}
    numbers = check_values(grid.recipe.below(path, options), OF_BEST_OF_N, tuple(OF_BEST_OF_N)).get("n", DEFAULT_N)
    if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise UserError(f"{grid.recipe.where(f'{path}.n')} is {numbers}; give different numbers from 1")
    penalty = entry.options.get("missing_eos_penalty", grid.options.get("missing_eos_penalty")) or 0.0
    if isinstance(penalty, bool) or not isinstance(penalty, int | float) or penalty < 0:
        raise UserError(f"{grid.recipe.where(f'{path}.missing_eos_penalty')} is {penalty!r}; give a number from 0")
    return Trainings(BEST_OF_N, (), tuple(sorted(numbers)), float(penalty))


def prepared(training: Training, recipe: Recipe, *, rewards: bool) -> Run:
    """The run that the algorithm's own command would make of a recipe.

    Args:
        training: The training.
        recipe: From `Training.recipe`.
        rewards: Whether the reward is there, to be read.

    Raises:
        UserError: An option is wrong.
    """
    run = prepare(training.algorithm, recipe)
    if rewards or not training.by_reward:
        run.read_rewards()
    return run
