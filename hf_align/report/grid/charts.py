"""Charts of a benchmark's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hf_align.report.charts.curves import Curve, curve_chart
from hf_align.report.charts.intervals import Interval, interval_chart
from hf_align.report.figures import absent

Summary = Mapping[str, Any]
BEST_OF_N = "best-of-n"
COLORS = ("run-0", "run-1", "run-2", "run-3", "run-4", "run-5", "run-7", "run-8")
"""CSS classes in turn; run-6 is grey, as the base is."""


def colors_of(summary: Summary) -> dict[str, str]:
    """CSS class of each label; best-of-n has the base's."""
    labels: dict[str, str] = {}
    for dataset in summary["datasets"]:
        for each in dataset["algorithms"]:
            trained = sum(color != "base" for color in labels.values())
            new = "base" if each["algorithm"] == BEST_OF_N else COLORS[trained % len(COLORS)]
            labels.setdefault(each["label"], new)
    return labels


def gain_charts(summary: Summary, name: str, title: str, *, origin: float = 0.0, digits: int = 3) -> list[Markup]:
    """A figure of all algorithms, grouped by data set; nothing where none has it."""
    colors, groups = colors_of(summary), []
    for dataset in summary["datasets"]:
        items = [
            Interval(each["label"], colors[each["label"]], each[name]["mean"], _interval(each[name]["interval"]))
            for each in dataset["algorithms"]
            if each[name] is not None and not absent(each[name]["mean"])
        ]
        groups.append((dataset["name"], items))
    groups = [(group, items) for group, items in groups if items]
    return [interval_chart(groups, title=title, origin=origin, digits=digits)] if groups else []


def frontier_charts(summary: Summary, key: str, unit: str) -> list[Markup]:
    """Gain over sqrt(KL) on each data set, best-of-n as a line."""
    colors, charts = colors_of(summary), []
    for dataset in summary["datasets"]:
        if not (frontier := dataset[key]):
            continue
        anchor = [(each["kl"] ** 0.5, each["gain"]) for each in frontier["anchor"]]
        curves = (
            [Curve("best-of-n", "base", [(x, gain["mean"]) for x, gain in anchor], _band(anchor))] if anchor else []
        )
        for point in frontier["points"]:
            place = [(max(point["kl"]["mean"], 0.0) ** 0.5, point["gain"])]
            shown = [(x, gain["mean"]) for x, gain in place]
            curves.append(Curve(point["label"], colors[point["label"]], shown, _band(place), line=False, named=True))
        charts.append(
            curve_chart(
                curves,
                title=f"{dataset['name']}: {unit} over KL",
                axes=("square root of KL (nats)", unit),
                x_range=(0.0, max(x for curve in curves for x, _ in curve.points)),
            )
        )
    return charts


def _band(points: Sequence[tuple[float, Summary]]) -> list[tuple[float, float, float]]:
    return [(x, *gain["interval"]) for x, gain in points if not any(map(absent, gain["interval"]))]


def _interval(pair: Sequence[float | None]) -> Sequence[float] | None:
    return None if any(map(absent, pair)) else pair  # pyright: ignore


def learning_charts(summary: Summary) -> list[Markup]:
    """Logged values over rows: means of the seeds, with bands from the smallest to the largest."""
    colors, charts = colors_of(summary), []
    for dataset in summary["datasets"]:
        for logged in dataset["curves"]:
            curves = [
                Curve(
                    label,
                    colors[label],
                    [(x, middle) for x, middle, _, _ in points],
                    [(x, low, high) for x, _, low, high in points],
                    dots=len(points) <= 12,
                )
                for label, points in logged["curves"].items()
            ]
            title = f"{dataset['name']}: {logged['title']}"
            charts.append(curve_chart(curves, title=title, axes=("rows trained on", logged["title"])))
    return charts
