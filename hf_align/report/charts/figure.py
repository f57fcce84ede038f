"""What all charts consist of: an SVG figure with caption and legend, axes, paths, reference lines."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 14, 34
CHARACTER = 6
"""Width of a character of a label, about."""
MINUS = "\N{MINUS SIGN}"
Point = tuple[float, float]
Place = Callable[[float, float], Point]
"""Maps data coordinates to pixels."""


def place_in(x_range: tuple[float, float], y_range: tuple[float, float], top: float = TOP) -> Place:
    """Where data coordinates stand in a plot of the usual size.

    Args:
        x_range: Values at its left and right end.
        y_range: Values at its lower and upper end; equal ones put all at the top.
        top: Pixels left free above it.
    """
    (left, right), (low, high) = x_range, y_range

    def at(x: float, y: float) -> Point:
        across = LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        return across, top + (high - y) / ((high - low) or 1) * (HEIGHT - top - BOTTOM)

    return at


@dataclass(frozen=True)
class Reference:
    """A dashed horizontal line, such as chance."""

    value: float
    label: str


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that enclose `low` and `high`, about `count` of them, steps 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def number(value: float) -> str:
    """Text of a tick: no trailing zeros, no exponent for ordinary magnitudes."""
    return f"{value:.4g}".replace("-", MINUS)


def y_axis(values: Sequence[float], at: Place, x_high: float, x_low: float = 0.0) -> Markup:
    """Grid lines with their values."""
    tick = Markup(
        '<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>'
    )
    rows = ((value, *at(x_low, value), at(x_high, value)[0]) for value in values)
    return Markup("").join(tick.format(x1, x2, x1 - 6, y + 4, number(value), y=y) for value, x1, y, x2 in rows)


def x_axis(values: Sequence[float], at: Place, y_low: float, name: str = "step") -> Markup:
    """Values below the chart, and what they are."""
    text = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    bottom = at(0, y_low)[1]
    parts = [text.format(at(value, y_low)[0], bottom + 16, "middle", number(value)) for value in values]
    return Markup("").join([*parts, text.format(WIDTH - 2, bottom + 30, "end", name)])


def reference_line(reference: Reference, at: Place, x_high: float) -> Markup:
    """A dashed line with its label."""
    (x1, y), (x2, _) = at(0, reference.value), at(x_high, reference.value)
    return Markup(
        '<line class="reference" x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>'
    ).format(x1, x2, x1 + 4, y - 4, reference.label, y=y)


def path(points: Sequence[Point], css: str) -> Markup:
    """A path of a CSS class through points in pixels."""
    steps = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<path class="{}" d="M{}"/>').format(css, steps)


def empty_figure(title: str, reason: str) -> Markup:
    """A caption with the reason why there is no chart."""
    return Markup('<figure class="chart"><figcaption>{}</figcaption><p class="note">{}</p></figure>').format(
        title, reason
    )


def figure(
    parts: Sequence[Markup],
    title: str,
    color: str,
    height: float,
    keys: Sequence[tuple[str, str]] = (),
    label: str = "",
) -> Markup:
    """A chart with its caption, and a legend for several curves."""
    legend = Markup("").join(Markup('<span class="key {}">{}</span>').format(css, text) for text, css in keys)
    return Markup(
        '<figure class="chart {color}"><figcaption>{title}</figcaption>{legend}'
        '<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{label}">{body}</svg></figure>'
    ).format(
        color=color,
        title=title,
        legend=Markup('<p class="legend">{}</p>').format(legend) if legend else "",
        width=WIDTH,
        height=height,
        label=label or title,
        body=Markup("").join(parts),
    )
