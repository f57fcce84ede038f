"""Proxy and judge along KL, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_align.files import whole_file
from hf_align.report.pictures import BLUE, GREY, ORANGE, can_draw, new_figure, plain, png_of

PICTURE = "over_optimization.png"
AXES = ("KL from the start, nats", "gain, standard deviations")
Figures = Mapping[str, Any]


def course_png(figures: Figures) -> bytes | None:
    """Make the image that `draw_course` writes, or None without matplotlib or with fewer than two points."""
    if len(figures["curve"]) < 2 or not can_draw():
        return None
    figure = new_figure(6.4, 4, layout="constrained")
    axes = figure.add_subplot()
    for name, label, color in (("proxy", "reward", BLUE), ("judge", "judge", ORANGE)):
        gains = _gains(figures, name)
        axes.plot(*zip(*gains["points"], strict=True), "o-", color=color, markersize=4, linewidth=1.5, label=label)
        if gains["band"]:
            kl, low, high = zip(*gains["band"], strict=True)
            axes.fill_between(kl, low, high, color=color, alpha=0.15, linewidth=0)
        if gains["fitted"]:
            axes.plot(*zip(*gains["fitted"], strict=True), "--", color=GREY, linewidth=1, label="fitted form")
    for kl, text in _marks(figures):
        axes.axvline(kl, color=GREY, linewidth=1, linestyle=":")
        axes.annotate(text, (kl, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    axes.set_xlabel(AXES[0], fontsize=9)
    axes.set_ylabel(AXES[1], fontsize=9)
    plain(axes)
    axes.legend(frameon=False, fontsize=9)
    return png_of(figure)


def draw_course(figures: Figures, path: Path) -> bool:
    """Write the PNG, whole or not at all; says whether it was drawn."""
    if (picture := course_png(figures)) is not None:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(picture)
    return picture is not None


def _gains(figures: Figures, name: str) -> dict[str, list[Any]]:
    """A curve, its band and its fitted form as gains since the first point, in standard deviations there."""
    curve, first = figures["curve"], figures["curve"][0][name]
    scale = figures[f"{name}_sd"] or 1.0
    intervals = [(point["kl"], *point[f"{name}_interval"]) for point in curve]
    return {
        "points": [(point["kl"], (point[name] - first) / scale) for point in curve],
        "band": [
            (kl, (low - first) / scale, (high - first) / scale) for kl, low, high in intervals if _known(low, high)
        ],
        "fitted": [(kl, (value - first) / scale) for kl, value in figures["fitted"] or ()] if name == "judge" else [],
    }


def _marks(figures: Figures) -> list[tuple[float, str]]:
    """The turning point, if there is one in the measured range."""
    fit = figures["fit"]
    if not fit or not fit["turns"]:
        return []
    return [(fit["turning_point"], f"turns at KL {fit['turning_point']:.2g}")]


def _known(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)
