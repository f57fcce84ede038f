"""Finished runs of a benchmark, as their files have them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_align.errors import UserError

BASE, RESULT, FAILED = "base", "result.json", "failed.json"
"""Folder of the model that all start from, and the files of a run's folder (`DATASET/LABEL/SEED`, or `base/SEED`)."""
BEST_OF_N = "best-of-n"
FIGURES = ("judge", "win", "reward", "kl", "length", "finished")
"""Figures of a response to each held-out prompt: the judge's score, 1, 1/2 or 0 against the base's response (of a judge
that only compares), the training's reward, KL from the base in nats, tokens, and whether it ended by itself."""
Cell = tuple[str, str, int]
"""A run's data set, label and seed."""
Figures = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        label: What the grid calls its algorithm.
        algorithm: The registry's name, or "best-of-n".
        seed: Its seed.
        figures: `[P]` by name (`FIGURES`), a response to each held-out prompt.
        by_n: Figures of best-of-n by n.
        rewards: Of the base: the rewards `[P]` of its responses by data set, whose reward models differ.
        facts: All else that its file holds.
    """

    label: str
    algorithm: str
    seed: int
    figures: Figures
    by_n: Mapping[int, Figures] = field(default_factory=dict)
    rewards: Figures = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether its seed is one of a training: best-of-n trains nothing."""
        return self.algorithm != BEST_OF_N


class Gap(NamedTuple):
    """Why a planned run has no figures, and whether it failed."""

    reason: str
    failed: bool


@dataclass(frozen=True)
class Runs:
    """The runs of a grid.

    Attributes:
        prompts: P, the number of held-out prompts.
        base: Runs of the model that all start from, by seed.
        finished: Runs by data set, label and seed, in the grid's order.
        gaps: Planned runs without figures.
        remarks: What was left out of single runs.
    """

    prompts: int
    base: Mapping[int, Run]
    finished: Mapping[str, Mapping[str, Mapping[int, Run]]]
    gaps: Mapping[Cell, Gap]
    remarks: Sequence[str]

    def base_for(self, dataset: str) -> dict[int, Figures]:
        """The base's figures by seed, its rewards those of a data set's reward model."""
        return {
            seed: {**run.figures, **({"reward": run.rewards[dataset]} if dataset in run.rewards else {})}
            for seed, run in self.base.items()
        }


def read_runs(folder: str | os.PathLike[str], planned: Sequence[Cell] | None = None) -> Runs:
    """Read the runs below a folder.

    Args:
        folder: A benchmark's output folder.
        planned: The grid's cells, in the order in which they are shown. Default: those that have a folder, in
            alphabetical order.

    Raises:
        UserError: A file can't be read, has no figures of a judge, or has another number of prompts than the others;
            nothing is finished, or nothing of the base.
    """
    folder, remarks, gaps = Path(folder), [], {}
    base = {
        run.seed: run for run in (_read(path, folder, remarks) for path in sorted(folder.glob(f"{BASE}/*/{RESULT}")))
    }
    finished: dict[str, dict[str, dict[int, Run]]] = {}
    for cell in [*_cells(folder)] if planned is None else planned:
        dataset, label, seed = cell
        path = folder / dataset / label / str(seed)
        runs = finished.setdefault(dataset, {}).setdefault(label, {})
        if not (path / RESULT).exists():
            gaps[cell] = _gap(path / FAILED)
        elif seed not in base:
            gaps[cell] = Gap(
                f"finished, but {BASE}/{seed} isn't, and gains are over the base with the same seed", False
            )
        else:
            runs[seed] = _read(path / RESULT, folder, remarks)
    everything = [
        *base.values(),
        *(run for cells in finished.values() for each in cells.values() for run in each.values()),
    ]
    if len(everything) == len(base):
        raise UserError(f"{folder} has no finished run of an algorithm; run hf-align benchmark first.")
    prompts = _count(folder, everything)
    return Runs(prompts, base, finished, gaps, remarks)


def _cells(folder: Path) -> Iterator[Cell]:
    """Cells with a file, in alphabetical order, seeds in ascending one."""
    paths = {path.parent for name in (RESULT, FAILED) for path in folder.glob(f"*/*/*/{name}")}
    cells = [(path.parts[-3], path.parts[-2], int(path.name)) for path in paths if path.name.isdigit()]
    yield from sorted(cells)


def _gap(path: Path) -> Gap:
    """The sentence of a failed run, or that there was none."""
    if not path.exists():
        return Gap("not run", False)
    return Gap(str(_content(path).get("reason") or "no reason was written"), True)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as JSON ({error}); delete it to run it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no result of hf-align benchmark; delete it to run it again.")
    return content


def _read(path: Path, folder: Path, remarks: list[str]) -> Run:
    """A run; a figure that is undefined for a prompt is left out, and `remarks` say so."""
    content, place = _content(path), path.parent.relative_to(folder).as_posix()
    try:
        label, algorithm, seed = str(content["label"]), str(content["algorithm"]), int(content["seed"])
        by_n = {int(n): _figures(each, f"{place}, n = {n}", remarks) for n, each in content.get("by_n", {}).items()}
        figures = _figures(content["figures"], place, remarks)
        rewards = {
            dataset: array
            for dataset, values in content.get("rewards", {}).items()
            if (array := _figure(values, f"rewards.{dataset}", place, remarks)) is not None
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no result of hf-align benchmark ({error!r}); delete it to run it again.") from error
    facts = {name: value for name, value in content.items() if name not in ("figures", "by_n", "rewards", "responses")}
    return Run(label, algorithm, seed, figures, dict(sorted(by_n.items())), rewards, facts)


def _figures(content: Mapping[str, Any], place: str, remarks: list[str]) -> Figures:
    given = {name: _figure(content[name], name, place, remarks) for name in FIGURES if content.get(name) is not None}
    return {name: array for name, array in given.items() if array is not None}


def _figure(values: Sequence[float | None], name: str, place: str, remarks: list[str]) -> NDArray[np.float64] | None:
    array = np.asarray([np.nan if value is None else value for value in values], dtype=float)
    if undefined := int((~np.isfinite(array)).sum()):
        remarks.append(f"{place}: {name} is undefined for {undefined} of {len(array)} prompts and left out.")
        return None
    return array


def _count(folder: Path, runs: Sequence[Run]) -> int:
    """The number of held-out prompts, which must be everybody's."""
    counts = {
        len(values)
        for run in runs
        for figures in (run.figures, run.rewards, *run.by_n.values())
        for values in figures.values()
    }
    if len(counts) != 1 or not min(counts):
        raise UserError(
            f"runs in {folder} have {', '.join(map(str, sorted(counts)))} prompts: they belong to different grids; "
            "give each grid its own output_dir."
        )
    return counts.pop()
