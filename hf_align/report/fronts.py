"""A front of several objectives: as a page, as charts and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from markupsafe import Markup

from hf_align.report.charts.curves import Curve, curve_chart
from hf_align.report.figures import decimal, ends
from hf_align.report.pictures import BLUE, can_draw, new_figure, plain, png_of
from hf_align.report.render import render_page

Figures = Mapping[str, Any]
MOST = 6
"""Most pairs of objectives that are drawn."""


def front_charts(figures: Figures) -> list[Markup]:
    """Draw a chart of each pair of objectives: the points on the front, joined, and the dominated ones.

    Args:
        figures: From `Front.figures`, or its JSON.
    """
    names = figures["objectives"]
    pairs = list(combinations(range(len(names)), 2))[:MOST]
    return [_chart(figures, x, y, joined=len(names) == 2) for x, y in pairs]


def _chart(figures: Figures, x: int, y: int, *, joined: bool) -> Markup:
    points = sorted(figures["points"], key=lambda point: point["values"][x])
    names = figures["objectives"]

    def places(on_front: bool) -> list[tuple[float, float]]:
        return [(point["values"][x], point["values"][y]) for point in points if point["on_front"] is on_front]

    curves = [
        Curve("on the front", "reward", places(True), line=joined),
        Curve("dominated", "base", places(False), line=False),
    ]
    marks = [(point["values"][x], point["label"]) for point in points if point["on_front"]]
    return curve_chart(curves, title=f"{names[y]} over {names[x]}", axes=(names[x], names[y]), marks=marks)


def front_png(figures: Figures) -> bytes | None:
    """The charts as a PNG, one below the other; None without matplotlib."""
    if not can_draw():
        return None
    names = figures["objectives"]
    pairs = list(combinations(range(len(names)), 2))[:MOST]
    figure = new_figure(6.4, 4 * len(pairs), layout="constrained")
    for number, (x, y) in enumerate(pairs, 1):
        axes = figure.add_subplot(len(pairs), 1, number)
        for on_front, label, color in ((True, "on the front", BLUE), (False, "dominated", "#999999")):
            points = sorted(each["values"] for each in figures["points"] if each["on_front"] is on_front)
            line = "o-" if on_front and len(names) == 2 else "o"
            if points:
                axes.plot([each[x] for each in points], [each[y] for each in points], line, color=color, label=label)
        for each in figures["points"]:
            if each["on_front"]:
                place = (each["values"][x], each["values"][y])
                axes.annotate(each["label"], place, xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel(names[x], fontsize=9)
        axes.set_ylabel(names[y], fontsize=9)
        plain(axes)
        axes.legend(frameon=False, fontsize=9)
    return png_of(figure)


def front_sentence(figures: Figures) -> str:
    """What the front is made of, in a sentence."""
    points, prompts = figures["points"], figures["prompts"]
    front = sum(point["on_front"] for point in points)
    volume, interval = decimal(figures["hypervolume"], 3), ends(figures["hypervolume_interval"], 1, 3)
    return (
        f"{front} of {len(points)} points are on the front, by means over {prompts} prompts. Hypervolume {volume} "
        f"{interval}".rstrip()
        + f" above {figures['reference_name']}."
    )


def front_table(figures: Figures) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: point, each objective with its interval, whether it is on the front and how often."""
    columns = ["point", *figures["objectives"], "on the front", "of resamples"]
    rows = [
        [
            point["label"],
            *(
                f"{decimal(value, 3)} {ends(interval, 1, 3)}".rstrip()
                for value, interval in zip(point["values"], point["intervals"], strict=True)
            ),
            "yes" if point["on_front"] else "dominated",
            f"{point['front_share']:.0%}",
        ]
        for point in figures["points"]
    ]
    return columns, rows


def front_text(figures: Figures) -> str:
    """The sentence and the table for a terminal."""
    columns, rows = front_table(figures)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)]
    return "\n".join([front_sentence(figures), "", *(line.rstrip() for line in lines)])


def render_front(figures: Figures) -> str:
    """Render the page.

    Args:
        figures: From `Front.figures`, or its JSON.

    Returns:
        HTML; names are escaped.
    """
    columns, rows = front_table(figures)
    charts = front_charts(figures)
    return render_page("front.html.j2", sentence=front_sentence(figures), charts=charts, columns=columns, rows=rows)
