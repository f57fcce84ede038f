"""A grid checked wholly before anything is trained: judge, rewards, data, every algorithm's options and rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_align.algorithms import ALGORITHMS, Rows
from hf_align.errors import UserError
from hf_align.evaluation.policy_inputs import read_asked
from hf_align.experiments.benchmark.data import TrainingData, read_data, read_held_out
from hf_align.experiments.benchmark.grid import HYBRID, REWARD, DataEntry, Grid, read_grid
from hf_align.experiments.benchmark.limits import Elapsed
from hf_align.experiments.benchmark.planned import Benchmark
from hf_align.experiments.benchmark.training import build_hybrid, reward_recipe
from hf_align.experiments.benchmark.trainings import Training, Trainings, at, check_common, prepared, trainings_of
from hf_align.experiments.improvement.judging import RecipeJudge
from hf_align.experiments.judges import scores_or_judge
from hf_align.experiments.recipe import Recipe
from hf_align.experiments.run import Run, prepare
from hf_align.feedback.judges.named import check_judge
from hf_align.models.ensemble_files import member_sources
from hf_align.models.kinds import check_head, check_is_policy
from hf_align.models.sources import adapter_config, check_source, load_tokenizer, plain_folder
from hf_align.rewards import Judge
from hf_align.rewards.named import read_reward
from hf_align.rewards.vader import VADER
from hf_align.rollouts.sampler import check_room
from hf_align.trainers.checks import check_place
from hf_align.trainers.hybrid.rows import check_rows_of
from hf_align.trainers.resuming import ResumingTrainer


def prepare_benchmark(recipe: Recipe) -> Benchmark:
    """Check a grid and read its data.

    Args:
        recipe: From `read_recipe`, or `Recipe(values)`.

    Raises:
        UserError: A key, value, option, judge, reward, budget or row can't be used; nothing is written or loaded then.
    """
    grid = read_grid(recipe)
    check_common(grid)
    check_place(Path(grid.config.output_dir), recipe.where("output_dir"))
    _check_model(grid)
    judge = _judge(grid)
    held_out = _held_out(grid)
    data = {name: _data(grid, each, held_out) for name, each in grid.datasets.items()}
    for entry in grid.datasets.values():
        _check_reward(grid, entry, data[entry.name])
    trainings = {
        (name, label): trainings_of(grid, entry, grid.datasets[name])
        for label, entry in grid.algorithms.items()
        for name in entry.datasets
    }
    rows = RowCheck(load_tokenizer(grid.model))
    for (name, label), each in trainings.items():
        with at(f"algorithms.{label}"):
            _check_trainings(grid, grid.datasets[name], data[name], each, rows)
    return Benchmark(grid, held_out, data, trainings, isinstance(judge, Judge))


class RowCheck:
    """Checks rows as trainers read them, the same rows with the same limits of lengths once.

    Args:
        tokenizer: The policy's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._checked: set[Any] = set()

    def __call__(self, name: str, kind: Rows, rows: Any, args: Any, reward: Any) -> None:
        """Check the rows of a data set.

        Raises:
            UserError: Names the data set and the row.
        """
        limits = {option: value for option, value in vars(args).items() if "length" in option or "trunc" in option}
        key = (name, kind, repr(sorted(limits.items())), reward is None)
        if key not in self._checked:
            check_rows_of(kind, {f"datasets.{name}": rows}, self.tokenizer, args, reward)
            self._checked.add(key)


def _check_model(grid: Grid) -> None:
    check_source(grid.model)
    check_is_policy(grid.model, "model", ask_hub=True)
    place = grid.recipe.where("model")
    if adapter_config(plain_folder(grid.model)) is not None:
        raise UserError(f"{place}: {grid.model} is an adapter, and runs are compared with their base; merge it first")
    if grid.quantization is not None and grid.lora is None:
        raise UserError(
            f"{grid.recipe.where('quantization')}: quantised weights train only through an adapter; add lora: true"
        )


def _judge(grid: Grid) -> Any:
    """The judge, as `scores_or_judge` gives it."""
    place = grid.recipe.where("judge")
    if RecipeJudge(grid.judge, place).is_policy:
        raise UserError(f"{place} is the policy itself, which is trained; name another judge")
    return scores_or_judge(check_judge(grid.judge, place))


def _held_out(grid: Grid) -> Dataset:
    rows = read_held_out(grid.prompts, grid.prompts_limit, grid.recipe.where("prompts"))
    asked = read_asked(rows)
    if not len(asked):
        raise UserError(f"{grid.recipe.where('prompts')} has no rows; give held-out prompts")
    check_room(grid.model, asked.prompts, asked.options, grid.config.max_new_tokens, "prompts")
    return rows


def _data(grid: Grid, entry: DataEntry, held_out: Dataset) -> TrainingData:
    return read_data(
        entry.pairs,
        entry.prompts,
        limit=entry.limit,
        flip=entry.flip,
        held_out=held_out,
        probed=None if entry.budget.kl is None else entry.budget.kl_prompts,
        place=f"datasets.{entry.name}",
    )


def _check_reward(grid: Grid, entry: DataEntry, data: TrainingData) -> None:
    """Refuse a data set's reward that can't be loaded or trained, or that the judge is made of."""
    place = grid.recipe.where(f"datasets.{entry.name}.reward")
    if entry.reward is None:
        return
    if isinstance(entry.reward, dict):
        if data.pairs is None:
            raise UserError(f"{place}: it is trained on pairs, and {entry.name} has none; give pairs")
        with at(place):
            folder = Path(grid.config.output_dir, entry.name, REWARD)
            prepare(ALGORITHMS["reward"], reward_recipe(grid.model, entry.reward, folder, grid.lora, grid.quantization))
        return
    reward = read_reward(entry.reward, place)
    names = [reward] if isinstance(reward, str) else [each for _, each in reward] if isinstance(reward, list) else []
    for name in (each for each in names if isinstance(each, str) and each != VADER):
        with at(place):
            for source in member_sources(name):
                check_source(source)
                check_head(source)
    _check_independent(grid, entry.reward, place)


def _check_independent(grid: Grid, trained_by: Any, place: str) -> None:
    judge = grid.recipe.where("judge")
    shared = RecipeJudge(trained_by, place).sources(grid.model) & RecipeJudge(grid.judge, judge).sources(grid.model)
    if shared:
        raise UserError(
            f"{judge} has {min(shared)}, which policies are trained by, too ({place}); name an independent judge"
        )


def _check_trainings(grid: Grid, entry: DataEntry, data: TrainingData, trainings: Trainings, check: RowCheck) -> None:
    """Refuse an algorithm whose rows or reward aren't there, or whose trainer would refuse its options or rows."""
    if trainings.needs_reward and entry.reward is None:
        raise UserError(
            f"it is trained by a reward, and data set {entry.name} has none; add `reward:` there, a reward model or "
            "options to train one on its pairs"
        )
    for part in trainings.parts:
        if data.rows_for(part.algorithm.rows) is None:
            kind = "prompts" if part.algorithm.rows == "prompts" else "pairs"
            raise UserError(f"{part.algorithm.name} trains on {kind}, and data set {entry.name} has none; give {kind}")
        if part.judge is not None:
            _check_independent(grid, part.judge, f"{part.algorithm.name}'s judge")
    if trainings.kind == HYBRID:
        _check_hybrid(grid, entry, data, trainings)
    for part in trainings.parts if trainings.kind == "train" else ():
        run = run_of(grid, entry, part)
        if issubclass(run.trainer, ResumingTrainer):  # what another package's own trainer reads isn't known
            reward = None if isinstance(entry.reward, Mapping) else run.checked.source.get("reward")
            check(entry.name, part.algorithm.rows, data.rows_for(part.algorithm.rows), run.args, reward)


def run_of(grid: Grid, entry: DataEntry, part: Training) -> Run:
    """The run that a training's own command would make; its reward may not be trained yet."""
    folder, trained = Path(grid.config.output_dir, entry.name), isinstance(entry.reward, Mapping)
    seed, reward = grid.config.seed_list[0], str(folder / REWARD) if trained else entry.reward
    recipe = part.recipe(grid.model, folder, seed, grid.lora, grid.quantization, reward)
    return prepared(part, recipe, rewards=not trained)


def _check_hybrid(grid: Grid, entry: DataEntry, data: TrainingData, trainings: Trainings) -> None:
    if entry.budget.kl is not None and all(each.algorithm.rows != "prompts" for each in trainings.parts):
        raise UserError(
            "the budget limits the KL, which a hybrid measures on the prompts of a stage that samples; "
            "add such a stage, or leave the hybrid out"
        )
    settings = {
        "budget": asdict(entry.budget),
        "seed": grid.config.seed_list[0],
        "lora": grid.lora,
        "quantization": grid.quantization,
        "max_new_tokens": grid.config.max_new_tokens,
    }
    reward = None if entry.reward is None else _unread
    folder = Path(grid.config.output_dir, entry.name, HYBRID)
    clocks = [Elapsed() for _ in trainings.parts]
    build_hybrid(grid.model, settings, list(trainings.parts), data, reward, folder, clocks)


def _unread(prompts: Any, responses: Any) -> list[float]:
    """Stands for a reward that is checked elsewhere, or not trained yet."""
    return [0.0] * len(responses)
