"""Histograms over each other, and a bar for each count."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hf_align.report.charts.figure import (
    CHARACTER,
    HEIGHT,
    WIDTH,
    Reference,
    empty_figure,
    figure,
    path,
    place_in,
    ticks,
    x_axis,
    y_axis,
)


@dataclass(frozen=True)
class Counts:
    """How many values are in each bin; `color` is a CSS class."""

    label: str
    color: str
    values: Sequence[float]


def histogram_chart(
    edges: Sequence[float],
    counts: Sequence[Counts],
    *,
    title: str,
    axes: tuple[str, str],
    limit: Reference | None = None,
) -> Markup:
    """Draw histograms with common bins over each other, as outlines.

    Args:
        edges: Ends of the bins, ascending: one more than there are bins.
        counts: Drawn in order.
        title: Caption; the accessible name adds the counts.
        axes: What is on the x axis and the y axis.
        limit: A dashed vertical line, such as a length limit; it is left out beyond the bins.
    """
    most = max((value for each in counts for value in each.values), default=0)
    if not most:
        return empty_figure(title, "nothing to draw")
    x_ticks, y_ticks = ticks(edges[0], edges[-1], 5), ticks(0, most, 4)
    at = place_in((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    parts = [y_axis(y_ticks, at, x_ticks[-1], x_ticks[0]), x_axis(x_ticks, at, 0, axes[0])]
    for each in counts:
        steps = [(edges[0], 0.0), (edges[-1], 0.0)]
        for low, high, value in zip(edges[:-1], edges[1:], each.values, strict=True):
            steps[-1:-1] = [(low, value), (high, value)]
        places = [at(*step) for step in steps]
        parts.append(Markup('<g class="{}">{}{}</g>').format(each.color, path(places, "band"), path(places, "mean")))
    if limit is not None and x_ticks[0] <= limit.value <= x_ticks[-1]:
        (x, low), (_, high) = at(limit.value, 0), at(limit.value, y_ticks[-1])
        parts.append(
            Markup(
                '<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
            ).format(
                low,
                high,
                *((x + 4, high + 8, "start") if x < WIDTH / 2 else (x - 4, high + 8, "end")),
                limit.label,
                x=x,
            )
        )
    said = "; ".join(f"{each.label}: {', '.join(f'{value:.4g}' for value in each.values)}" for each in counts)
    keys = [(each.label, each.color) for each in counts]
    return figure(parts, title, "", HEIGHT, keys, f"{title}. {axes[1]} by {axes[0]}. {said}")


def bar_chart(bars: Sequence[tuple[str, str, float]], *, title: str, digits: int = 0) -> Markup:
    """Draw a horizontal bar for each count.

    Args:
        bars: (label, CSS class, count), none negative.
        title: Caption; the accessible name adds the counts.
        digits: Decimals of the printed values.
    """
    if not bars:
        return empty_figure(title, "nothing to draw")
    line, most = 22, max(value for _, _, value in bars) or 1
    gutter = min(max(96, 16 + CHARACTER * max(len(label) for label, _, _ in bars)), WIDTH * 3 // 5)
    texts = [f"{value:,.{digits}f}" for _, _, value in bars]
    room = WIDTH - gutter - 12 - CHARACTER * max(map(len, texts))
    parts = [
        Markup(
            '<g class="{color}"><rect class="bar" x="{gutter}" y="{y}" width="{width:.1f}" height="12" rx="2"/>'
            '<text class="value" x="{end:.1f}" y="{text}">{value}</text>'
            '<text class="tick" x="{left}" y="{text}" text-anchor="end">{label}</text></g>'
        ).format(
            color=color,
            gutter=gutter,
            y=line * number + 4,
            width=max(room * value / most, 1 if value else 0),
            end=gutter + room * value / most + 6,
            text=line * number + 14,
            value=text,
            left=gutter - 10,
            label=label,
        )
        for number, ((label, color, value), text) in enumerate(zip(bars, texts, strict=True))
    ]
    said = "; ".join(f"{label} {text}" for (label, _, _), text in zip(bars, texts, strict=True))
    return figure(parts, title, "", line * len(bars) + 4, label=f"{title}: {said}")
