"""Over-optimisation by PPO as a table: where the judge is highest, what is left of its gain, where the watch stops."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.resampled import DRAWS, interval, rows
from hf_align.evaluation.over_optimization import Course, is_over_optimized
from hf_align.files import ADAPTER_CONFIG, write_json

PATIENCE = 2
"""As `PPOConfig.over_optimization_patience` has it."""
FILE = "ppo_courses.json"


def keep(out: Path, results: Path) -> None:
    """Put the course of each finished run below `out` (seed, then reward) into the results, whole or not at all."""
    path = results / FILE
    courses: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for file in sorted(out.glob("*/*/over_optimization.json")):
        if (file.parent / ADAPTER_CONFIG).exists():  # saved at the end
            courses[f"{file.parent.parent.name}/{file.parent.name}"] = json.loads(file.read_text())["course"]
    write_json(path, courses)


def table(results: Path) -> str:
    """One line a run, as markdown; "" without runs."""
    path = results / FILE
    courses = (
        {name: Course.from_json(each) for name, each in json.loads(path.read_text()).items()} if path.exists() else {}
    )
    head = ["proxy", "seed", "steps", "KL at the end", "proxy's gain", "judge's highest gain", "at KL", "at the end"]
    lines: list[list[Any]] = [[*head, "gain kept", "turns at KL (Gao)", "watch stops at step (KL)"]]
    for name, course in sorted(courses.items()):
        seed, reward = name.split("/")
        lines.append([reward.replace("_", "-"), seed, *_cells(course)])
    return rows(lines) if courses else ""


def _cells(course: Course) -> list[str]:
    judge = (course.judge - course.judge[:, :1]) / course.judge_sd
    proxy = (course.proxy - course.proxy[:, :1]) / course.proxy_sd
    kl, best = course.kl.mean(0), int(judge.mean(0).argmax())
    drawn = _drawn(judge)
    kept = drawn[:, -1] / np.maximum(drawn.max(1), 1e-9)
    stop = stops_at(course)
    return [
        str(course.at[-1]),
        f"{kl[-1]:.1f}",
        f"{proxy[:, -1].mean():.2f}",
        f"{judge[:, best].mean():.2f} {_ends(drawn[:, best])}",
        f"{kl[best]:.1f}",
        f"{judge[:, -1].mean():.2f} {_ends(drawn[:, -1])}",
        f"{judge[:, -1].mean() / judge[:, best].mean():.0%} {_ends(100 * kept, 0)}" if best else "",
        _turn(course),
        "never" if stop is None else f"{course.at[stop]} ({kl[stop]:.1f})",
    ]


def stops_at(course: Course) -> int | None:
    """Number of the first point at which `stop_on_over_optimization` ends a run, None if none does."""
    points = range(1, len(course.at) + 1)
    over = (n - 1 for n in points if is_over_optimized(course.proxy[:, :n], course.judge[:, :n], PATIENCE))
    return next(over, None)


def _drawn(judge: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over resampled prompts: `[P, K]` -> `[B, K]`."""
    draws = np.random.default_rng(0).integers(len(judge), size=(DRAWS, len(judge)))
    return judge[draws].mean(1)


def _turn(course: Course) -> str:
    fit: Mapping[str, Any] | None = course.figures()["fit"]
    if fit is None or not fit["turns"]:
        return "no turn"
    low, high = fit["turning_interval"]
    return f"{fit['turning_point']:.1f} [{low:.1f}, {high:.1f}]"


def _ends(values: NDArray[np.float64], digits: int = 2) -> str:
    low, high = interval(values)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
