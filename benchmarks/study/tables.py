"""The study's tables, from its finished runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study import grids, length, over_optimization
from benchmarks.study.cache import CachedTexts
from benchmarks.study.ensembles import noise_table, uncertainty_table
from benchmarks.study.label_tables import label_table, tuning_table
from benchmarks.study.records import Run, read, scores_of
from benchmarks.study.resampled import Figures, HeldOut, cell, mean_figures, number, rows
from benchmarks.study.settings import Settings
from hf_align.data.embedded.ratings import DOMAINS


def by_settings(runs: Sequence[Run]) -> dict[Settings, list[Run]]:
    """Runs that differ in nothing but the seed."""
    found: defaultdict[Settings, list[Run]] = defaultdict(list)
    for run in runs:
        values = {**run["settings"], "texts": tuple(run["settings"]["texts"]), "seed": 0}
        found[Settings(**values)].append(run)
    return dict(found)


def grid_table(
    runs: Sequence[Run], start: Settings, grid: Mapping[str, Mapping[str, Any]], default: str, held_out: HeldOut
) -> str:
    """Settings of a grid against the default: means over seeds and domains, as markdown."""
    groups = by_settings([run for run in runs if run["settings"]["test"]])
    figures: dict[str, list[Figures]] = {}
    for name, changes in grid.items():
        of_name = groups.get(replace(start, **changes, seed=0), [])
        if of_name:
            figures[name] = [held_out.figures(scores_of(run)) for run in of_name]
    if default not in figures:
        return "(no runs of the default yet)"
    reference = mean_figures(figures[default])
    lines: list[list[Any]] = [["", *(f"r {domain}" for domain in DOMAINS), "r", "seeds", "accuracy", "ECE", "runs"]]
    for name, every in figures.items():
        mean = mean_figures(every)
        cells: list[Any] = [name, *(number(value) for value in mean["r"][0])]
        for measure in ("r", "accuracy", "ece"):
            values, drawn = mean[measure]
            text = number(values.mean())
            if name == default:
                text += f" {cell(drawn.mean(0))}"
            else:
                change = (drawn - reference[measure][1]).mean(0)
                text += f" {cell(change, signed=True)}"
            cells.append(text)
            if measure == "r":
                seeds = [each["r"][0].mean() for each in every]
                cells.append(number(float(np.std(seeds, ddof=1))) if len(seeds) > 1 else "")
        lines.append([*cells, len(every)])
    return rows(lines)


def all_tables(results: Path, cache: CachedTexts) -> str:
    """Every table for which there are runs, with its heading."""
    held_out = HeldOut(cache)
    heads, above = read(results / "heads.jsonl"), read(results / "runs.jsonl")
    proxies = read(results / "over_optimization.jsonl")
    members = [run for run in [*heads, *above] if run["experiment"] in ("members", "average")]
    parts = {
        "Heads on features": grid_table(heads, grids.ON_FEATURES, grids.HEADS, grids.DEFAULT, held_out),
        "LoRA above the cache": grid_table(above, grids.ABOVE, grids.LORA, next(iter(grids.LORA)), held_out),
        "Flipped labels": noise_table(members, held_out),
        "Uncertainty": uncertainty_table(members, held_out),
        "Length bias, features": length.table(length.of_runs(heads, held_out), held_out),
        "Length bias, LoRA": length.table(length.of_runs(above, held_out), held_out),
        "Tuning": tuning_table(above, cache),
    }
    if proxies:
        parts["Over-optimisation, people"] = over_optimization.table(proxies, cache, by_model=False)
        parts["Over-optimisation, gold model"] = over_optimization.table(proxies, cache, by_model=True)
    if any(run["experiment"] == "labels" for run in above):
        parts["Labels"] = label_table(above, cache)
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in parts.items())
