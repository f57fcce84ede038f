"""Lines, intervals, histograms and bars as inline SVG, coloured by the page's CSS, light and dark."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 14, 34

CHARACTER = 6
"""Width of a character of a label, about."""

MINUS = "\N{MINUS SIGN}"

Point = tuple[float, float]
Place = Callable[[float, float], Point]
"""Maps data coordinates to pixels."""


@dataclass(frozen=True)
class Reference:
    """A dashed horizontal line, such as chance."""

    value: float
    label: str


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
        return _nothing(title, "nothing logged")
    values = [y for _, y in points] + [v for v in (held_out, reference and reference.value) if v is not None]
    y_ticks = ticks(*(y_range or (min(values), max(values))), 4)
    x_ticks = [t for t in ticks(0, points[-1][0], 5) if t == int(t) and t <= points[-1][0]]
    y_low, y_high = y_range or (y_ticks[0], y_ticks[-1])
    x_high = max(points[-1][0], 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / x_high * (WIDTH - LEFT - RIGHT)
        return across, TOP + (y_high - y) / ((y_high - y_low) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = [_y_axis(y_ticks, at, x_high), _x_axis(x_ticks, at, y_low)]
    if reference is not None:
        parts.append(_reference(reference, at, x_high))
    smooth = running_mean([y for _, y in points])
    parts.append(_path([at(x, y) for x, y in points], "raw"))
    parts.append(_path([at(x, y) for (x, _), y in zip(points, smooth, strict=True)], "mean"))
    if held_out is not None and math.isfinite(held_out):
        parts.append(_held_out(held_out, at, x_high))
    return _figure(parts, title, color, HEIGHT)


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
    return _figure(parts, title, "", height, label=f"{title}: {said}")


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
        return _nothing(title, "nothing to draw")
    bands = [edge for each in curves for x, *pair in each.band if all(map(math.isfinite, pair)) for edge in pair]
    x_ticks = ticks(*(x_range or _ends([x for each in curves for x, _ in each.points])), 5)
    y_ticks = ticks(*(y_range or _ends([*(y for each in curves for _, y in each.points), *bands])), 4)
    top = TOP + (14 if marks else 0)

    def at(x: float, y: float) -> Point:
        across = LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - LEFT - RIGHT)
        return across, top + (y_ticks[-1] - y) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - top - BOTTOM)

    parts = [_y_axis(y_ticks, at, x_ticks[-1], x_ticks[0]), _x_axis(x_ticks, at, y_ticks[0], axes[0])]
    parts += [
        Markup('<text class="tick" x="{:.1f}" y="10" text-anchor="middle">{}</text>').format(at(x, 0)[0], text)
        for x, text in _apart(marks, at)
    ]
    parts += [
        Markup('<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
            at(cut, y_ticks[0])[1], at(cut, y_ticks[-1])[1], x=at(cut, 0)[0]
        )
        for cut in cuts
        if x_ticks[0] <= cut <= x_ticks[-1]
    ]
    if diagonal:
        low, high = max(x_ticks[0], y_ticks[0]), min(x_ticks[-1], y_ticks[-1])
        (x1, y1), (x2, y2) = at(low, low), at(high, high)
        parts.append(
            Markup('<line class="reference" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(x1, y1, x2, y2)
        )
    parts += [*(_curve(each, at) for each in curves), *_names(curves, at)]
    keys = [(each.label, each.color) for each in curves if each.points] + ([(diagonal, "")] if diagonal else [])
    said = "; ".join(f"{each.label}: {', '.join(f'{x:.3g} {y:.3g}' for x, y in each.points)}" for each in curves)
    return _figure(parts, title, "", HEIGHT, keys, f"{title}. {axes[1]} over {axes[0]}. {said}")


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
        return _nothing(title, "nothing to draw")
    x_ticks, y_ticks = ticks(edges[0], edges[-1], 5), ticks(0, most, 4)

    def at(x: float, y: float) -> Point:
        across = LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (y_ticks[-1] - y) / y_ticks[-1] * (HEIGHT - TOP - BOTTOM)

    parts = [_y_axis(y_ticks, at, x_ticks[-1], x_ticks[0]), _x_axis(x_ticks, at, 0, axes[0])]
    for each in counts:
        steps = [(edges[0], 0.0), (edges[-1], 0.0)]
        for low, high, value in zip(edges[:-1], edges[1:], each.values, strict=True):
            steps[-1:-1] = [(low, value), (high, value)]
        places = [at(*step) for step in steps]
        parts.append(Markup('<g class="{}">{}{}</g>').format(each.color, _path(places, "band"), _path(places, "mean")))
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
    return _figure(parts, title, "", HEIGHT, keys, f"{title}. {axes[1]} by {axes[0]}. {said}")


def bar_chart(bars: Sequence[tuple[str, str, float]], *, title: str, digits: int = 0) -> Markup:
    """Draw a horizontal bar for each count.

    Args:
        bars: (label, CSS class, count), none negative.
        title: Caption; the accessible name adds the counts.
        digits: Decimals of the printed values.
    """
    if not bars:
        return _nothing(title, "nothing to draw")
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
    return _figure(parts, title, "", line * len(bars) + 4, label=f"{title}: {said}")


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
            parts.append(_path(outline, "band"))
        else:
            parts += [_path([at(x, low), at(x, high)], "whisker") for x, low, high in edges]
    if curve.points:
        places = [at(x, y) for x, y in curve.points]
        if curve.line:
            parts.append(_path(places, "mean"))
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


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that enclose `low` and `high`, about `count` of them, steps 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def running_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a tenth of the curve (at least 3 points), shorter at the ends."""
    half = max(1, len(values) // 20)
    windows = (values[max(0, place - half) : place + half + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def number(value: float) -> str:
    """Text of a tick: no trailing zeros, no exponent for ordinary magnitudes."""
    return f"{value:.4g}".replace("-", MINUS)


def _y_axis(values: Sequence[float], at: Place, x_high: float, x_low: float = 0.0) -> Markup:
    tick = Markup(
        '<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>'
    )
    rows = ((value, *at(x_low, value), at(x_high, value)[0]) for value in values)
    return Markup("").join(tick.format(x1, x2, x1 - 6, y + 4, number(value), y=y) for value, x1, y, x2 in rows)


def _x_axis(values: Sequence[float], at: Place, y_low: float, name: str = "step") -> Markup:
    text = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    bottom = at(0, y_low)[1]
    parts = [text.format(at(value, y_low)[0], bottom + 16, "middle", number(value)) for value in values]
    return Markup("").join([*parts, text.format(WIDTH - 2, bottom + 30, "end", name)])


def _reference(reference: Reference, at: Place, x_high: float) -> Markup:
    (x1, y), (x2, _) = at(0, reference.value), at(x_high, reference.value)
    return Markup(
        '<line class="reference" x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>'
    ).format(x1, x2, x1 + 4, y - 4, reference.label, y=y)


def _held_out(value: float, at: Place, x_high: float) -> Markup:
    x, y = at(x_high, value)
    return Markup(
        '<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="4.5"/>'
        '<text class="value" x="{:.1f}" y="{:.1f}" text-anchor="end">held out {}</text>'
    ).format(x, y, x - 9, y + (14 if y < TOP + 20 else -7), number(round(value, 3)))


def _path(points: Sequence[Point], css: str) -> Markup:
    steps = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<path class="{}" d="M{}"/>').format(css, steps)


def _nothing(title: str, reason: str) -> Markup:
    return Markup('<figure class="chart"><figcaption>{}</figcaption><p class="note">{}</p></figure>').format(
        title, reason
    )


def _figure(
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
