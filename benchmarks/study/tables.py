"""The study's tables, from its finished runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study import courses, grids, length, over_optimization
from benchmarks.study.cache import CachedTexts
from benchmarks.study.ensembles import AVERAGE, noise_table, uncertainty_table
from benchmarks.study.label_tables import label_table, tuning_table
from benchmarks.study.records import Run, read, scores_of
from benchmarks.study.resampled import Figures, HeldOut, cell, mean_figures, number, rows
from benchmarks.study.settings import Settings
from hf_align.data.embedded.ratings import DOMAINS


def by_settings(runs: Sequence[Run]) -> dict[Settings, list[Run]]:
    """Runs that differ in nothing but the seed, in the order of seeds; a weight average isn't its first member."""
    found: defaultdict[Settings, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run["settings"]["seed"]):
        values = {**run["settings"], "texts": tuple(run["settings"]["texts"]), "seed": 0}
        member = AVERAGE if run["experiment"] == "average" else values.get("member", 0)
        found[Settings(**{**values, "member": member})].append(run)
    return dict(found)


def grid_table(
    groups: Mapping[Settings, list[Run]], start: Settings, grid: Mapping[str, Mapping[str, Any]], held_out: HeldOut
) -> str:
    """Settings of a grid against its first: means over seeds and domains, as markdown."""
    lines: list[list[Any]] = [["", *(f"r {domain}" for domain in DOMAINS), "r", "seeds", "accuracy", "ECE", "runs"]]
    reference: Figures | None = None
    for name, changes in grid.items():
        runs = groups.get(replace(start, **changes), [])
        if not runs:
            continue
        every = [held_out.figures(scores_of(run)) for run in runs]
        mean = mean_figures(every)
        cells: list[Any] = [name, *(number(value) for value in mean["r"][0])]
        for measure in ("r", "accuracy", "ece"):
            values, drawn = mean[measure]
            change = drawn if reference is None else drawn - reference[measure][1]
            cells.append(_shown(values.mean(), change.mean(0), signed=reference is not None))
            if measure == "r":
                seeds = [each["r"][0].mean() for each in every]
                cells.append(number(float(np.std(seeds, ddof=1))) if len(seeds) > 1 else "")
        reference = mean if reference is None else reference
        lines.append([*cells, len(every)])
    return rows(lines)


def hard_table(
    groups: Mapping[Settings, list[Run]], start: Settings, grid: Mapping[str, Mapping[str, Any]], held_out: HeldOut
) -> str:
    """Mean r clean and with flipped labels, and r on each domain without training on it, as markdown."""
    lines: list[list[Any]] = [
        ["", "clean", "25% flipped", *(f"{domain}, trained without" for domain in DOMAINS), "runs"]
    ]
    for name, changes in grid.items():
        clean = replace(start, **changes)
        flipped = groups.get(replace(clean, flips=grids.FLIPS), [])
        if clean not in groups or not flipped:
            continue
        known, noisy = (_r_of(of, held_out) for of in (groups[clean], flipped))
        cells: list[Any] = [name, _shown(known[0].mean(), known[1].mean(0))]
        cells.append(_shown(noisy[0].mean(), noisy[1].mean(0) - known[1].mean(0), signed=True))
        for place, without in enumerate(grids.out_of_domain(clean)):
            if without not in groups:
                cells.append("")
                continue
            outside = _r_of(groups[without], held_out)
            change = outside[1][place] - known[1][place]
            cells.append(_shown(outside[0][place], change, signed=True))
        lines.append([*cells, len(flipped)])
    return rows(lines)


def _r_of(runs: Sequence[Run], held_out: HeldOut) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Domains' r `[3]`, and of every resample `[3, B]`."""
    return mean_figures([held_out.figures(scores_of(run), ("r",)) for run in runs])["r"]


def _shown(value: float, drawn: NDArray, signed: bool = False) -> str:
    return f"{number(value)} {cell(drawn, signed=signed)}"


def all_tables(results: Path, cache: CachedTexts, wanted: str = "") -> str:
    """Every table whose name holds what is wanted, with its heading."""
    held_out = HeldOut(cache)
    heads, above = read(results / "heads.jsonl"), read(results / "runs.jsonl")
    proxies = read(results / "over_optimization.jsonl")
    on_features, with_lora = by_settings(heads), by_settings(above)
    named = {name: grids.HEADS[name] for name in (grids.DEFAULT, grids.BEST)}
    start, above_24 = grids.ON_FEATURES, replace(grids.ABOVE, frozen_layers=24)
    tables: dict[str, Callable[[], str]] = {
        "Heads": lambda: grid_table(on_features, start, grids.HEADS, held_out),
        "Heads, hard cases": lambda: hard_table(on_features, start, named, held_out),
        "Heads, flipped labels": lambda: noise_table(on_features, start, held_out),
        "Heads, uncertainty": lambda: uncertainty_table(on_features, start, held_out),
        "Heads, length": lambda: length.table(length.of_runs(on_features, start, held_out), held_out),
        "Over-optimisation, people": lambda: over_optimization.table(proxies, cache, by_model=False),
        "Over-optimisation, gold model": lambda: over_optimization.table(proxies, cache, by_model=True),
        "Over-optimisation, PPO": lambda: courses.table(results),
        "LoRA": lambda: grid_table(with_lora, above_24, grids.LORA, held_out),
        "LoRA, hard cases": lambda: hard_table(with_lora, above_24, grids.LORA, held_out),
        "LoRA, flipped labels": lambda: noise_table(with_lora, above_24, held_out),
        "LoRA, uncertainty": lambda: uncertainty_table(with_lora, above_24, held_out),
        "LoRA, length": lambda: length.table(length.of_runs(with_lora, above_24, held_out), held_out),
        "LoRA, tuning": lambda: tuning_table(above, cache),
        "LoRA, labels": lambda: label_table(above, cache),
    }
    return "\n\n".join(f"## {name}\n\n{table()}" for name, table in tables.items() if wanted in name)
