"""The picture of a benchmark: gains with intervals, and gain over KL, a row for each data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_align.report.grid.charts import BEST_OF_N
from hf_align.report.pictures import can_draw, new_figure, plain, png_of

Summary = Mapping[str, Any]
PALETTE = ("#2563c9", "#c2610c", "#1f8a5b", "#6d4bc3", "#b3261e", "#0f8f8c", "#8a6d00", "#b8327f")
GREY = "#6b7280"
NAME_HEIGHT = 0.065
"""Of the axes, from one name of a point to the next."""


def benchmark_png(summary: Summary) -> bytes | None:
    """Draw it; None without matplotlib, or without a gain to draw."""
    drawn = [each for each in summary["datasets"] if any(entry["judge"] for entry in each["algorithms"])]
    if not drawn or not can_draw():
        return None
    most = max(len(each["algorithms"]) for each in drawn)
    width, height = 11.0, len(drawn) * max(3.2, 0.42 * most + 1.2)
    figure = new_figure(width, height)
    # Fixed margins: to measure the labels first, as layout engines do, takes as long again as to draw.
    names = 0.3 + 0.075 * max(len(entry["label"]) for each in drawn for entry in each["algorithms"])
    left, right, bottom, top = names / width, 1 - (names - 0.1) / width, 0.55 / height, 1 - 0.3 / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.15, hspace=0.32)
    colors = _colors(drawn)
    for row, dataset in enumerate(drawn):
        _draw_gains(figure.add_subplot(len(drawn), 2, 2 * row + 1), dataset, colors)
        _draw_frontier(figure.add_subplot(len(drawn), 2, 2 * row + 2), dataset, colors)
    return png_of(figure)


def _colors(datasets: Any) -> dict[str, str]:
    entries = {each["label"]: each["algorithm"] for dataset in datasets for each in dataset["algorithms"]}
    trained = [label for label, algorithm in entries.items() if algorithm != BEST_OF_N]
    return {label: PALETTE[place % len(PALETTE)] for place, label in enumerate(trained)}


def _draw_gains(axes: Any, dataset: Summary, colors: Mapping[str, str]) -> None:
    entries = [each for each in dataset["algorithms"] if each["judge"]]
    for place, each in enumerate(reversed(entries)):
        judge, color = each["judge"], colors.get(each["label"], GREY)
        if None not in judge["interval"]:
            axes.plot(judge["interval"], [place, place], color=color, linewidth=2, alpha=0.6)
        axes.plot(judge["mean"], place, "o", color=color, markersize=6)
        axes.plot(judge["by_seed"], [place - 0.22] * len(judge["by_seed"]), "|", color=color, markersize=6)
    axes.set_yticks(range(len(entries)), [each["label"] for each in reversed(entries)], fontsize=9)
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    axes.set_title(f"{dataset['name']}: judge's gain over the base", fontsize=10)
    axes.set_xlabel("gain, 95% interval; ticks are seeds", fontsize=9)
    plain(axes)


def _draw_frontier(axes: Any, dataset: Summary, colors: Mapping[str, str]) -> None:
    frontier = dataset["frontier"] or {"points": [], "anchor": []}
    if anchor := frontier["anchor"]:
        x = [each["kl"] ** 0.5 for each in anchor]
        axes.plot(x, [each["gain"]["mean"] for each in anchor], "o-", color=GREY, markersize=4, label="best-of-n")
        ends = [each["gain"]["interval"] for each in anchor]
        if not any(None in each for each in ends):
            axes.fill_between(x, *zip(*ends, strict=True), color=GREY, alpha=0.15, linewidth=0)
    for point in frontier["points"]:
        x, gain, color = max(point["kl"]["mean"], 0.0) ** 0.5, point["gain"], colors[point["label"]]
        if None not in gain["interval"]:
            axes.plot([x, x], gain["interval"], color=color, linewidth=2, alpha=0.6)
        axes.plot(x, gain["mean"], "o", color=color, markersize=6)
    axes.axhline(0, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlim(left=0)
    axes.set_title(f"{dataset['name']}: gain over the square root of KL", fontsize=10)
    axes.set_xlabel("square root of KL from the base (nats)", fontsize=9)
    if frontier["anchor"]:
        axes.legend(frameon=False, fontsize=9)
    _name_points(axes, frontier["points"], colors)
    plain(axes)


def _name_points(axes: Any, points: Sequence[Summary], colors: Mapping[str, str]) -> None:
    """Names right of the axes, each at its point's height or as near as others allow, and lines to the points."""
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point["gain"]["mean"])
    heights = spread([(point["gain"]["mean"] - low) / (high - low) for point in ordered], NAME_HEIGHT)
    for point, height in zip(ordered, heights, strict=True):
        color = colors[point["label"]]
        axes.annotate(
            point["label"],
            (max(point["kl"]["mean"], 0.0) ** 0.5, point["gain"]["mean"]),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=color,
            arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.35, "linewidth": 0.8},
        )


def spread(heights: Sequence[float], least: float) -> list[float]:
    """Rising heights moved so that neighbours are `least` apart, within 0 to 1 if they fit in there."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + least) if placed else height)
    limit = 1.0
    for place in reversed(range(len(placed))):
        placed[place] = min(placed[place], limit)
        limit = placed[place] - least
    return placed
