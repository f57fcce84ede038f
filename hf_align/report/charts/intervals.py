"""Values with their intervals, one a line."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hf_align.report.charts.figure import CHARACTER, MINUS, WIDTH, figure, number, ticks


@dataclass(frozen=True)
class Interval:
    """A value with its interval; `color` is a CSS class."""

    label: str
    color: str
    value: float
    interval: Sequence[float] | None


def interval_chart(
    rows: Sequence[tuple[str, Sequence[Interval]]], *, title: str, digits: int = 2, origin: float = 0.0
) -> Markup:
    """Draw groups of dots with whiskers, one line per value, for instance scorers within domains.

    Args:
        rows: (group name or "", values); a value without an interval is drawn as a ring.
        title: Caption; the accessible name adds the values.
        digits: Decimals of the printed values.
        origin: A value that the axis shows in any case, drawn as a line.
    """
    line, gap = 20, 10
    items = [item for _, group in rows for item in group]
    gutter = min(max(96, 16 + CHARACTER * max((len(item.label) for item in items), default=0)), WIDTH // 2)
    ends = [end for item in items for end in (item.value, *(item.interval or ())) if math.isfinite(end)]
    x_ticks = ticks(min([origin, *ends]), max([origin, *ends]) if ends else 1.0, 5)
    height = sum((len(group) + bool(name)) * line + gap for name, group in rows) + 18

    def across(value: float) -> float:
        span = (x_ticks[-1] - x_ticks[0]) or 1
        return gutter + (value - x_ticks[0]) / span * (WIDTH - gutter - 44)

    parts = [
        Markup(
            '<line class="{}" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{}"/>'
            '<text class="tick" x="{x:.1f}" y="{}" text-anchor="middle">{}</text>'
        ).format("axis" if tick == origin else "grid", height - 18, height - 4, number(tick), x=across(tick))
        for tick in x_ticks
    ]
    y = line / 2
    for name, group in rows:
        if name:
            parts.append(Markup('<text class="group" x="0" y="{:.1f}">{}</text>').format(y + 4, name))
            y += line
        for item in group:
            parts.append(_interval_row(item, y, across, gutter, digits))
            y += line
        y += gap
    said = "; ".join(f"{name} {item.label} {item.value:.{digits}f}".strip() for name, group in rows for item in group)
    return figure(parts, title, "", height, label=f"{title}: {said}")


def _interval_row(item: Interval, y: float, across: Callable[[float], float], gutter: float, digits: int) -> Markup:
    low, high = item.interval or (item.value, item.value)
    return Markup(
        '<g class="{color}"><line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<circle class="{shape}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        '<text class="value" x="{right}" y="{text:.1f}" text-anchor="end">{value}</text>'
        '<text class="tick" x="{gutter}" y="{text:.1f}" text-anchor="end">{label}</text></g>'
    ).format(
        color=item.color,
        low=across(low),
        high=across(high),
        x=across(item.value),
        y=y,
        shape="dot" if item.interval else "ring",
        text=y + 4,
        right=WIDTH,
        value=f"{item.value:.{digits}f}".replace("-", MINUS),
        gutter=gutter - 10,
        label=item.label,
    )
