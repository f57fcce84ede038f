"""Training curves as one PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_align.algorithms import ALGORITHMS, Curves
from hf_align.files import whole_file
from hf_align.report.pictures import BLUE, ORANGE, can_draw, new_figure, plain, png_of

KL, KL_FROM_START = "eval_objective/kl", "eval_objective/kl_from_start"
HELD_OUT = {"objective/scores": "eval_reward"}
"""Evaluation names of curves where they aren't `eval_` plus the curve's name."""
FURTHER: Curves = (
    ("ensemble/std", "deviation of the reward's members"),
    ("ensemble/penalty", "taken off their mean"),
)
"""Curves of any run that logged them."""
History = Sequence[Mapping[str, Any]]


def curves_of(history: History) -> Curves:
    """Find the curves for a log: those of the first algorithm whose curves were all logged."""
    logged = {name for entry in history for name in entry}
    fitting = (each.curves for each in ALGORITHMS.builtin.values() if logged.issuperset(dict(each.curves)))
    return next(fitting, (("loss", "loss"),))


def draw_curves(history: History, curves: Curves, path: Path) -> bool:
    """Draw what a run logged, held-out values as dots; of an ensemble's rewards its spread, too.

    With a judge there are also reward and judge along KL.

    Args:
        history: `trainer.state.log_history`.
        curves: The curves to draw.
        path: The PNG; it appears whole or not at all.

    Returns:
        Whether it was drawn, which needs matplotlib and at least two logged steps.
    """
    if (picture := curves_png(history, curves)) is not None:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(picture)
    return picture is not None


def curves_png(history: History, curves: Curves) -> bytes | None:
    """Make the image that `draw_curves` writes, or None without matplotlib or enough points."""
    series, watched = [], _along_kl(history)
    for name, title in (*curves, *FURTHER):
        logged = _points(history, name)
        if len(logged) > 1:
            series.append((title, logged, _points(history, HELD_OUT.get(name, f"eval_{name}"))))
    if not series or not can_draw():
        return None
    panels = len(series) + (len(watched) > 1)
    columns = panels if panels <= 4 else 3
    rows = -(-panels // columns)
    width, height = 4 * columns, 3 * rows
    figure = new_figure(width, height)
    # Fixed margins: to measure the labels first, as layout engines do, takes as long again as to draw.
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.45 / width, bottom=0.5 / height, top=1 - 0.35 / height, wspace=0.3, hspace=0.35
    )
    for place, (title, logged, held_out) in enumerate(series, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.plot(*zip(*logged, strict=True), color=BLUE, linewidth=1.5)
        if held_out:
            axes.plot(*zip(*held_out, strict=True), "o", color=ORANGE, markersize=4, label="held out")
            axes.legend(frameon=False)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.locator_params(nbins=5)  # ticks with their labels take most of the time to draw
        plain(axes)
    if len(watched) > 1:
        _draw_along_kl(figure.add_subplot(rows, columns, panels), watched)
    return png_of(figure)


def _along_kl(history: History) -> list[tuple[float, float, float]]:
    """KL, reward and judge of each evaluation that an independent judge scored."""
    moved = any(KL_FROM_START in entry for entry in history)  # then other KLs are to where the reference was
    names = (KL_FROM_START if moved else KL, "eval_reward", "eval_judge")
    points = [tuple(float(entry[name]) for name in names) for entry in history if all(name in entry for name in names)]
    return [(kl, reward, judge) for kl, reward, judge in points if all(map(math.isfinite, (kl, reward, judge)))]


def _draw_along_kl(axes: Any, points: Sequence[tuple[float, float, float]]) -> None:
    """Reward and judge, each with its axis, along KL."""
    kl, reward, judge = zip(*points, strict=True)
    axes.plot(kl, reward, "o-", color=BLUE, markersize=4, linewidth=1.5)
    axes.set_title("reward (blue, left) and judge (red, right)", fontsize=10)
    axes.set_xlabel("KL from the reference at the start (nats)", fontsize=9)
    axes.grid(alpha=0.25)
    other = axes.twinx()
    other.plot(kl, judge, "o-", color=ORANGE, markersize=4, linewidth=1.5)
    for each in (axes, other):
        each.spines["top"].set_visible(False)


def _points(history: History, name: str) -> list[tuple[float, float]]:
    values = [(entry["step"], entry[name]) for entry in history if name in entry and "step" in entry]
    return [(float(step), float(value)) for step, value in values if math.isfinite(value)]
