"""A training curve: every logged value faintly, with a running mean on top."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from hf_align.report.charts.figure import (
    HEIGHT,
    TOP,
    Place,
    Point,
    Reference,
    empty_figure,
    figure,
    number,
    path,
    place_in,
    reference_line,
    ticks,
    x_axis,
    y_axis,
)


def line_chart(
    points: Sequence[Point],
    *,
    title: str,
    color: str,
    reference: Reference | None = None,
    held_out: float | None = None,
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """Draw a training curve: every logged value faintly, with a running mean on top.

    Args:
        points: (step, value), steps ascending; values that are not finite are skipped.
        title: Caption, also the chart's accessible name.
        color: CSS class that sets `--series`, such as "dpo".
        reference: Horizontal line to compare with.
        held_out: Final value on held-out data, drawn as a ring at the right edge.
        y_range: Fixed lower and upper end of the axis. Default: from the data.

    Returns:
        A `<figure>`.
    """
    points = [(float(x), float(y)) for x, y in points if math.isfinite(y)]
    if not points:
        return empty_figure(title, "nothing logged")
    values = [y for _, y in points] + [v for v in (held_out, reference and reference.value) if v is not None]
    y_ticks = ticks(*(y_range or (min(values), max(values))), 4)
    x_ticks = [t for t in ticks(0, points[-1][0], 5) if t == int(t) and t <= points[-1][0]]
    y_low, y_high = y_range or (y_ticks[0], y_ticks[-1])
    x_high = max(points[-1][0], 1.0)
    at = place_in((0.0, x_high), (y_low, y_high))
    parts = [y_axis(y_ticks, at, x_high), x_axis(x_ticks, at, y_low)]
    if reference is not None:
        parts.append(reference_line(reference, at, x_high))
    smooth = running_mean([y for _, y in points])
    parts.append(path([at(x, y) for x, y in points], "raw"))
    parts.append(path([at(x, y) for (x, _), y in zip(points, smooth, strict=True)], "mean"))
    if held_out is not None and math.isfinite(held_out):
        parts.append(_held_out(held_out, at, x_high))
    return figure(parts, title, color, HEIGHT)


def running_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a tenth of the curve (at least 3 points), shorter at the ends."""
    half = max(1, len(values) // 20)
    windows = (values[max(0, place - half) : place + half + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _held_out(value: float, at: Place, x_high: float) -> Markup:
    x, y = at(x_high, value)
    return Markup(
        '<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="4.5"/>'
        '<text class="value" x="{:.1f}" y="{:.1f}" text-anchor="end">held out {}</text>'
    ).format(x, y, x - 9, y + (14 if y < TOP + 20 else -7), number(round(value, 3)))
