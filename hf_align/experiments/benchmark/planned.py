"""A checked grid: its data, what is trained, and its runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset
from filelock import FileLock, Timeout

from hf_align.errors import UserError
from hf_align.evaluation.grid import BASE
from hf_align.experiments.benchmark.data import TrainingData, save_rows
from hf_align.experiments.benchmark.execute import HELD_OUT
from hf_align.experiments.benchmark.grid import BEST_OF_N, DATA, REWARD, AlgorithmEntry, DataEntry, Grid
from hf_align.experiments.benchmark.jobs import Job, content_of
from hf_align.experiments.benchmark.trainings import Trainings
from hf_align.files import UNFINISHED, write_json

GRID, LOCK = "grid.json", ".lock"
WORK = {"prompts": 4.0, "pairs": 2.0, "demonstrations": 1.0}
"""How long a row takes of each kind, beside others."""


@dataclass(frozen=True)
class Benchmark:
    """A checked grid; no weights are loaded.

    Attributes:
        grid: The grid.
        held_out: The prompts that every policy answers.
        data: Rows by data set.
        trainings: What is trained, by data set and algorithm's label.
        compares: Whether the judge compares responses with the base's, instead of scoring them.
    """

    grid: Grid
    held_out: Dataset
    data: dict[str, TrainingData]
    trainings: dict[tuple[str, str], Trainings]
    compares: bool

    @property
    def out(self) -> Path:
        """The benchmark's folder."""
        return Path(self.grid.config.output_dir)

    @cached_property
    def jobs(self) -> list[Job]:
        """All runs: the base's, reward models', then every algorithm's on every data set with every seed."""
        grid, shared = self.grid, self._shared()
        sources = {"model": grid.model, "judge": grid.judge}
        judge = {"judge": content_of(grid.judge)}
        rewards = {name: each.reward for name, each in grid.datasets.items() if each.reward is not None}
        trained = {name for name, each in rewards.items() if isinstance(each, dict)}
        jobs = []
        for seed in grid.config.seed_list:
            settings = {**shared, **judge, "algorithm": BASE, "label": BASE, "seed": seed}
            needs = tuple(f"{name}/{REWARD}" for name in sorted(trained))
            contents = {name: content_of(each) for name, each in rewards.items()}
            of_base = {**sources, "rewards": rewards, "contents": contents}
            jobs.append(Job(BASE, f"{BASE}/{seed}", settings, of_base, needs, float(len(self.held_out))))
        for name in sorted(trained):
            settings = {**shared, "dataset": name, "algorithm": REWARD, "label": REWARD, "lora": grid.lora}
            settings |= {"reward": rewards[name], "rows": self.data[name].digests}
            jobs.append(Job(REWARD, f"{name}/{REWARD}", settings, sources, (), float("inf")))
        for (name, label), each in self.trainings.items():
            reward = rewards.get(name)
            settings = {
                **shared,
                **judge,
                **self._settings_of(grid.datasets[name], grid.algorithms[label], each),
                "reward": content_of(reward),
            }
            for seed in grid.algorithms[label].seeds:
                needs = (*([f"{name}/{REWARD}"] if name in trained else []), *([f"{BASE}/{seed}"] * self.compares))
                work, of_run = self._work(each), {**sources, "reward": reward}
                jobs.append(Job(each.kind, f"{name}/{label}/{seed}", {**settings, "seed": seed}, of_run, needs, work))
        return jobs

    def _shared(self) -> dict[str, Any]:
        """Settings of all runs."""
        grid = self.grid
        return {
            "model": content_of(grid.model),
            "quantization": grid.quantization,
            "prompts": TrainingData(None, self.held_out).digests["prompts"],
            "max_new_tokens": grid.config.max_new_tokens,
            "eval_batch_size": grid.config.eval_batch_size,
        }

    def _settings_of(self, data: DataEntry, entry: AlgorithmEntry, trainings: Trainings) -> dict[str, Any]:
        """Settings of an algorithm's runs on a data set, without the seed."""
        parts = [
            {
                "algorithm": part.algorithm.name,
                "options": part.options,
                "length": asdict(part.length),
                "judge": part.judge,
                "stage": part.stage,
                "seconds": part.seconds,
            }
            for part in trainings.parts
        ]
        options: Any = {"stages": [{"algorithm": each["algorithm"], **each["options"]} for each in parts]}
        if trainings.kind == "train":
            options = parts[0]["options"]
        own = {
            "parts": parts,
            "lora": self.grid.lora,
            "budget": asdict(data.budget),
            "rows": self.data[data.name].digests,
        }
        if trainings.kind == BEST_OF_N:
            options = {"n": list(trainings.numbers), "missing_eos_penalty": trainings.penalty}
            own = {**options, "budget": None}
        return {
            "dataset": data.name,
            "algorithm": entry.algorithm,
            "label": entry.label,
            "flip": data.flip,
            "options": options,
            **own,
        }

    def _work(self, trainings: Trainings) -> float:
        if trainings.kind == BEST_OF_N:
            return float(len(self.held_out) * max(trainings.numbers))
        rows = sum(
            WORK.get(part.algorithm.rows, 1.0) * part.length.steps / part.length.group_steps * part.length.group_rows
            for part in trainings.parts
        )
        return rows + len(self.held_out)

    def described(self) -> dict[str, Any]:
        """The grid as JSON has it, with what was flipped and no folders of this machine."""
        grid = self.grid
        datasets = {
            name: {
                **{key: value for key, value in vars(entry).items() if key not in ("name", "budget", "reward")},
                "pairs": _named(entry.pairs),
                "prompts": _named(entry.prompts),
                "reward": _named(entry.reward),
                "budget": asdict(entry.budget),
                "flipped": list(self.data[name].flipped),
            }
            for name, entry in grid.datasets.items()
        }
        algorithms = {
            label: {
                **entry.options,
                "algorithm": entry.algorithm,
                "seeds": list(entry.seeds),
                "datasets": list(entry.datasets),
            }
            for label, entry in grid.algorithms.items()
        }
        return {
            "model": _named(grid.model),
            "judge": _named(grid.judge),
            "prompts": {"data": _named(grid.prompts), "limit": len(self.held_out)},
            "budget": grid.recipe.values["budget"],
            "seeds": list(grid.config.seed_list),
            "max_new_tokens": grid.config.max_new_tokens,
            "options": grid.options,
            "lora": grid.lora,
            "quantization": grid.quantization,
            "datasets": datasets,
            "algorithms": algorithms,
        }

    @property
    def cells(self) -> list[tuple[str, str, int]]:
        """Data set, label and seed of each run of an algorithm, in the grid's order."""
        entries = self.grid.algorithms.values()
        return [
            (name, entry.label, seed)
            for name in self.grid.datasets
            for entry in entries
            if name in entry.datasets
            for seed in entry.seeds
        ]

    def store(self) -> None:
        """Write rows and prompts into the folder, unless they are there, and the grid."""
        write_json(self.out / GRID, self.described())
        save_rows(self.held_out, self.out / DATA / HELD_OUT)
        for name, data in self.data.items():
            data.save(self.out / DATA / name)

    def check_folder(self) -> None:
        """Refuse a folder of something else, and one whose runs had other settings.

        Raises:
            UserError: Names the run and what changed.
        """
        if self.out.exists() and not (self.out / GRID).exists() and any(self._foreign()):
            raise UserError(f"output_dir: {self.out} exists and holds no benchmark; choose another folder")
        self.check_runs()

    def check_runs(self) -> None:
        """Refuse runs that had other settings than the grid says.

        Raises:
            UserError: Names the run and what changed.
        """
        for job in self.jobs:
            job.check_unchanged(self.out)

    def _foreign(self) -> list[Path]:
        return [path for path in self.out.iterdir() if path.name not in (LOCK, DATA) and UNFINISHED not in path.name]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder inside this context.

        Raises:
            UserError: Another benchmark is at work there.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.out / LOCK, timeout=0):
                yield
        except Timeout:
            raise UserError(f"output_dir: another benchmark is at work in {self.out}; wait for it, or end it") from None


def _named(value: Any) -> Any:
    """A name without a folder of this machine."""
    if isinstance(value, list):
        return [_named(each) for each in value]
    if isinstance(value, dict):
        return {key: _named(each) for key, each in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value.rpartition(":")[0] or value).exists() else value
