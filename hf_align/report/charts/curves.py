"""Curves over a common axis, with bands, marks and a diagonal."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from hf_align.report.charts.figure import (
    CHARACTER,
    HEIGHT,
    RIGHT,
    TOP,
    WIDTH,
    Place,
    Point,
    empty_figure,
    figure,
    path,
    place_in,
    ticks,
    x_axis,
    y_axis,
)


@dataclass(frozen=True)
class Curve:
    """Points as a line, dots or both; `color` is a CSS class.

    Attributes:
        label: What it is called.
        color: CSS class.
        points: (x, y).
        band: Ends (x, low, high): an area around a line, whiskers of dots without one.
        dots: Whether points are drawn.
        line: Whether they are joined.
        named: Whether the label also stands beside the last point.
    """

    label: str
    color: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    dots: bool = True
    line: bool = True
    named: bool = False


def curve_chart(
    curves: Sequence[Curve],
    *,
    title: str,
    axes: tuple[str, str],
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: str = "",
    marks: Sequence[tuple[float, str]] = (),
    cuts: Sequence[float] = (),
) -> Markup:
    """Draw curves over a common axis, such as observed over predicted probabilities.

    Args:
        curves: Drawn in order; points that are not finite are skipped.
        title: Caption; the accessible name adds each curve's points.
        axes: What is on the x axis and the y axis.
        x_range: Ends of the x axis. Default: from the data.
        y_range: Ends of the y axis. Default: from the data.
        diagonal: Label of a dashed line where both are equal; "" for none.
        marks: (x, text) written along the top, such as what an x stands for.
        cuts: Where a dashed line goes from bottom to top, such as at a change of the method.
    """
    curves = [replace(each, points=[p for p in each.points if all(map(math.isfinite, p))]) for each in curves]
    if not any(each.points for each in curves):
        return empty_figure(title, "nothing to draw")
    bands = [edge for each in curves for x, *pair in each.band if all(map(math.isfinite, pair)) for edge in pair]
    x_ticks = ticks(*(x_range or _ends([x for each in curves for x, _ in each.points])), 5)
    y_ticks = ticks(*(y_range or _ends([*(y for each in curves for _, y in each.points), *bands])), 4)
    at = place_in((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]), TOP + (14 if marks else 0))
    parts = [y_axis(y_ticks, at, x_ticks[-1], x_ticks[0]), x_axis(x_ticks, at, y_ticks[0], axes[0])]
    parts += [
        Markup('<text class="tick" x="{:.1f}" y="10" text-anchor="middle">{}</text>').format(at(x, 0)[0], text)
        for x, text in _apart(marks, at)
    ]
    low, high = y_ticks[0], y_ticks[-1]
    parts += [_dashed(at(cut, low), at(cut, high)) for cut in cuts if x_ticks[0] <= cut <= x_ticks[-1]]
    if diagonal:
        low, high = max(x_ticks[0], low), min(x_ticks[-1], high)
        parts.append(_dashed(at(low, low), at(high, high)))
    parts += [*(_curve(each, at) for each in curves), *_names(curves, at)]
    keys = [(each.label, each.color) for each in curves if each.points] + ([(diagonal, "")] if diagonal else [])
    said = "; ".join(f"{each.label}: {', '.join(f'{x:.3g} {y:.3g}' for x, y in each.points)}" for each in curves)
    return figure(parts, title, "", HEIGHT, keys, f"{title}. {axes[1]} over {axes[0]}. {said}")


def _dashed(one: Point, other: Point) -> Markup:
    line = Markup('<line class="reference" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return line.format(*one, *other)


def _apart(marks: Sequence[tuple[float, str]], at: Place) -> list[tuple[float, str]]:
    """The marks, from the last one, that don't overlap those behind them."""
    kept: list[tuple[float, str]] = []
    right = math.inf
    for x, text in reversed(marks):
        half = CHARACTER * len(text) / 2 + 3
        if at(x, 0)[0] + half <= right:
            kept.append((x, text))
            right = at(x, 0)[0] - half
    return kept


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _curve(curve: Curve, at: Place) -> Markup:
    """A curve with dots and its band, as one group."""
    parts = []
    if edges := [edge for edge in curve.band if all(map(math.isfinite, edge))]:
        if curve.line:
            outline = [at(x, high) for x, _, high in edges] + [at(x, low) for x, low, _ in reversed(edges)]
            parts.append(path(outline, "band"))
        else:
            parts += [path([at(x, low), at(x, high)], "whisker") for x, low, high in edges]
    if curve.points:
        places = [at(x, y) for x, y in curve.points]
        if curve.line:
            parts.append(path(places, "mean"))
        dots = places if curve.dots else []
        parts += [Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(*place) for place in dots]
    return Markup('<g class="{}">{}</g>').format(curve.color, Markup("").join(parts))


def _names(curves: Sequence[Curve], at: Place) -> Iterator[Markup]:
    """Labels of named curves beside their last points, from the bottom up, each above those that it would overlap."""
    placed: list[tuple[float, float, float]] = []
    named = [(*at(*each.points[-1]), each.label) for each in curves if each.named and each.points]
    for x, y, label in sorted(named, key=lambda each: -each[1]):
        width = CHARACTER * len(label)
        before = x + 6 + width > WIDTH - RIGHT
        left = x - 6 - width if before else x + 6
        while any(left < end and begin < left + width and abs(y - 4 - other) < 11 for begin, end, other in placed):
            y -= 1
        placed.append((left, left + width, y - 4))
        yield Markup('<text class="value" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
            x + (-6 if before else 6), y - 4, "end" if before else "start", label
        )
