"""The results of a benchmark: figures of all its finished runs, and how they are shown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.evaluation.grid.curves import learning_curves
from hf_align.evaluation.grid.differences import clean_twins, compare_all, lost_to_flips
from hf_align.evaluation.grid.frontier import measure_frontier
from hf_align.evaluation.grid.runs import Cell, Figures, Run, Runs, read_runs
from hf_align.evaluation.grid.summary import main_figure, summarise, summarise_base
from hf_align.files import finite, whole_file, write_text
from hf_align.report.grid import benchmark_markdown, benchmark_png, benchmark_text, render_benchmark
from hf_align.report.shown import SUFFIXES, Shown, check_suffix

FIGURES, TABLE, PAGE, PICTURE = "benchmark.json", "table.md", "report.html", "benchmark.png"
"""Files that `Results.write` makes."""
FORMATS = (*SUFFIXES, ".md", ".png")


@dataclass(frozen=True)
class Results(Shown):
    """What a benchmark measured. `str(results)` is for a terminal; in a notebook the page is shown.

    Attributes:
        grid: The grid, as it was given.
        summary: All figures: "facts", "base", "datasets" (by data set "name", "flip", "algorithms", "differences",
            "frontier", "reward_frontier", "curves"), "flips", "gaps" and "remarks"; see `summarise`, `compare_all`,
            `measure_frontier`, `learning_curves` and `lost_to_flips`. Undefined figures are None.

    Example:
        >>> from hf_align.evaluation.grid import read_results
        >>> results = read_results("out/benchmark")  # doctest: +SKIP
        >>> print(results.table())  # doctest: +SKIP
    """

    grid: Mapping[str, Any]
    summary: Mapping[str, Any]

    def table(self) -> str:
        """Every table as markdown."""
        return benchmark_markdown(self.summary)

    def to_html(self) -> str:
        """The page; names are escaped."""
        return render_benchmark(self.summary)

    def to_text(self, width: int) -> str:
        """What is better, and by how much, for a terminal of this width."""
        return benchmark_text(self.summary, width)

    def to_json(self) -> dict[str, Any]:
        """Grid and summary as JSON has them."""
        return finite({"grid": self.grid, "summary": self.summary})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page (.html), all figures (.json), the tables (.md) or the picture (.png); whole or not at all.

        Raises:
            UserError: Another suffix, or a picture without matplotlib.
        """
        check_suffix(path, suffixes=FORMATS)
        suffix = Path(path).suffix.lower()
        if suffix == ".md":
            write_text(path, self.table())
        elif suffix == ".png":
            if (picture := benchmark_png(self.summary)) is None:
                raise UserError("a picture needs matplotlib: pip install 'hf-align[report]'.")
            with whole_file(path) as unfinished:
                unfinished.write_bytes(picture)
        else:
            super().save(path)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write all files into a folder; the picture only with matplotlib.

        The same runs give the same bytes.
        """
        for name in (FIGURES, TABLE, PAGE):
            self.save(Path(folder, name))
        if (picture := benchmark_png(self.summary)) is not None:
            with whole_file(Path(folder, PICTURE)) as unfinished:
                unfinished.write_bytes(picture)


def read_results(
    folder: str | os.PathLike[str],
    grid: Mapping[str, Any] | None = None,
    planned: Sequence[Cell] | None = None,
) -> Results:
    """Read the finished runs of a benchmark and compare them.

    Args:
        folder: Its output folder, with `base/SEED/result.json` and `DATASET/LABEL/SEED/result.json`.
        grid: The grid: "model", "judge", "budget" and "datasets" (by name "pairs", "prompts" and "flip") are read.
        planned: The grid's cells (data set, label, seed) in the order in which they are shown; those without a result
            are listed with the reason. Default: what is in the folder.

    Raises:
        UserError: A file is broken, or of another grid; nothing is finished.
    """
    grid = dict(grid or {})
    return Results(grid, finite(_summary(grid, read_runs(folder, planned))))


def _summary(grid: Mapping[str, Any], runs: Runs) -> dict[str, Any]:
    figure, described = main_figure(runs), grid.get("datasets") or {}
    failed = [cell[:2] for cell, gap in runs.gaps.items() if gap.failed]
    finished = {
        dataset: {label: by_seed for label, by_seed in labels.items() if by_seed}
        for dataset, labels in runs.finished.items()
    }
    datasets = [
        _dataset(dataset, labels, described.get(dataset) or {}, runs.base_for(dataset), figure, failed)
        for dataset, labels in finished.items()
        if labels
    ]
    twins = clean_twins({name: described.get(name) or {} for name in finished})
    return {
        "facts": {
            "model": grid.get("model"),
            "judge": grid.get("judge"),
            "compares_only": figure == "win",
            "budget": grid.get("budget"),
            "prompts": runs.prompts,
        },
        "base": summarise_base(runs.base_for("")),
        "datasets": datasets,
        "flips": [
            {
                "clean": clean,
                "flipped": flipped,
                "algorithms": lost_to_flips(finished[clean], finished[flipped], runs.base_for(clean), figure),
            }
            for flipped, clean in twins.items()
        ],
        "gaps": [
            {"dataset": dataset, "label": label, "seed": seed, **gap._asdict()}
            for (dataset, label, seed), gap in runs.gaps.items()
        ],
        "remarks": list(runs.remarks),
    }


def _dataset(
    name: str,
    labels: Mapping[str, Mapping[int, Run]],
    described: Mapping[str, Any],
    base: Mapping[int, Figures],
    figure: str,
    failed: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    return {
        "name": name,
        "flip": described.get("flip") or 0.0,
        "algorithms": [
            summarise(label, by_seed, base, failed.count((name, label))) for label, by_seed in labels.items()
        ],
        "differences": compare_all(labels, base, figure),
        "frontier": measure_frontier(labels, base, "judge"),
        "reward_frontier": measure_frontier(labels, base, "reward"),
        "curves": learning_curves(labels),
    }
