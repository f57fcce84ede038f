"""Learning curves of a benchmark's runs, by rows trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from hf_align.evaluation.grid.runs import Run

CURVES = (
    ("eval_judge", "judge, held-out prompts"),
    ("objective/scores", "training's reward"),
    ("objective/kl", "KL from the reference, nats"),
    ("rewards/margins", "margin of implicit rewards"),
)
"""Logged values that are drawn, with their titles; a loss is its algorithm's own and compares with no other."""
Point = tuple[float, float, float, float]
"""Rows, mean over seeds, smallest and largest seed."""


def learning_curves(runs: Mapping[str, Mapping[int, Run]]) -> list[dict[str, Any]]:
    """What runs logged while they trained.

    A step stands for as many rows as any other of its run, so that runs with other batches share an axis.

    Args:
        runs: Runs by label and seed.

    Returns:
        By logged value that some algorithm has "name", "title" and "curves": by label points `Point` at the steps that
        all its seeds logged.
    """
    found = []
    for name, title in CURVES:
        curves = {
            label: _mean_curve([_points(run, name) for run in by_seed.values()]) for label, by_seed in runs.items()
        }
        if any(curves.values()):
            found.append({"name": name, "title": title, "curves": {label: c for label, c in curves.items() if c}})
    return found


def _points(run: Run, name: str) -> dict[float, float]:
    """Values by rows; none where steps begin anew, as in stages that count their own."""
    rows, steps = run.facts.get("rows"), run.facts.get("steps")
    logged = [
        (entry["step"], entry[name])
        for entry in run.facts.get("history") or ()
        if isinstance(entry.get(name), int | float) and math.isfinite(entry[name]) and "step" in entry
    ]
    if not rows or not steps or any(after[0] < before[0] for before, after in pairwise(logged)):
        return {}
    return {step * rows / steps: float(value) for step, value in logged}


def _mean_curve(seeds: Sequence[Mapping[float, float]]) -> list[Point]:
    common = sorted(set.intersection(*map(set, seeds))) if seeds else []
    values = [[each[x] for each in seeds] for x in common]
    return [(x, float(np.mean(row)), min(row), max(row)) for x, row in zip(common, values, strict=True)]
