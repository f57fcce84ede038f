"""The page of an inspection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from markupsafe import Markup

from hf_align.report.charts.counts import Counts, bar_chart, histogram_chart
from hf_align.report.charts.figure import Reference
from hf_align.report.charts.intervals import Interval, interval_chart
from hf_align.report.figures import Metrics
from hf_align.report.inspection_sections import (
    GRADES,
    findings_of,
    rows_text,
    rows_with,
    sections_of,
    shown_facts,
    verdict_of,
)
from hf_align.report.render import render_page
from hf_align.report.section_page import shortened

MOST_BARS = 24
"""Annotators and groups drawn; the tables have all."""
METHOD = (
    "Errors can't be trained on, or teach something wrong; warnings deserve a look before training; notes are worth "
    "knowing. Rows are counted from 0; the JSON lists all of them."
)


def render_inspection(inspection: Metrics) -> str:
    """Render the page.

    Args:
        inspection: `Inspection.to_json()`.

    Returns:
        HTML. Text from data sets is escaped.
    """
    facts = inspection["facts"]
    sections = sections_of(inspection)
    return render_page(
        "inspection.html.j2",
        name=facts.get("data") or "given rows",
        facts=facts,
        shown_facts=shown_facts(facts),
        tiles=_tiles(inspection),
        verdict=verdict_of(inspection),
        remarks=(),
        sections=sections,
        charts={section.key: list(_charts(section.key, inspection)) for section in sections if not section.empty},
        found={section.key: findings_of(inspection, section.key) for section in sections},
        rows_text=rows_text,
        shortened=shortened,
        method=METHOD,
        to_read=(),
    )


def _tiles(inspection: Metrics) -> list[tuple[str, str, str]]:
    """(label, number, colour) of the counts on top."""
    rows, fixed = inspection["facts"]["rows"], inspection["fixed"]
    bad, doubtful = (rows_with(inspection, severity) for severity in ("error", "warning"))
    tiles = [
        (inspection["facts"]["layout"], rows, "dpo"),
        ("rows with an error", len(bad), "bad" if bad else "good"),
        ("rows with a warning", len(doubtful - bad), "fair" if doubtful - bad else "good"),
        ("dropped by the fix", fixed["dropped"], "base"),
        ("repaired by the fix", fixed["changed"], "base"),
    ]
    return [(label, f"{number:,}", color) for label, number, color in tiles]


def _charts(key: str, inspection: Metrics) -> Iterator[Markup]:
    figures = inspection["metrics"][key]
    yield from CHARTS[key](figures, inspection["facts"]) if key in CHARTS else ()
    found = [each for each in findings_of(inspection, key) if each["rows"]]
    if len(found) > 1:
        bars = [(each["kind"].replace("_", " "), GRADES[each["severity"]], len(each["rows"])) for each in found]
        yield bar_chart(sorted(bars, key=lambda bar: -bar[2]), title="Rows by finding")


def _size(figures: Metrics, facts: Metrics) -> Iterator[Markup]:
    if drawn := figures.get("histogram"):
        limit = facts["max_length"] and Reference(facts["max_length"], "max_length")
        yield _histogram(
            drawn,
            [name for name in figures["lengths"] if name in ("chosen", "rejected", "response")],
            title=f"Lengths of responses, {figures['unit']}",
            axis=figures["unit"],
            limit=limit or None,
        )


def _histogram(
    drawn: Metrics, labels: Sequence[str], *, title: str, axis: str, limit: Reference | None = None, of: str = "rows"
) -> Markup:
    colors = ("human", "bad") if len(labels) > 1 else ("dpo",)
    counts = [Counts(*each) for each in zip(labels, colors, drawn["counts"], strict=True)]
    return histogram_chart(drawn["edges"], counts, title=title, axes=(axis, of), limit=limit)


def _agreement(figures: Metrics, facts: Metrics) -> Iterator[Markup]:
    if drawn := figures.get("histogram"):
        least = Reference(figures["least"], f"least {figures['least']:g}")
        yield _histogram(drawn, ["rows"], title="Agreement within rows", axis="share of agreeing pairs", limit=least)
    known = [(name, each) for name, each in (figures.get("annotators") or {}).items() if each["alpha"] is not None]
    if known:
        shown = [Interval(name, "human", each["alpha"], None) for name, each in known[:MOST_BARS]]
        title = "Alpha of annotators against the others" + ", the lowest" * (len(known) > MOST_BARS)
        yield interval_chart([("", shown)], title=title)
    for name, parts in (figures.get("groups") or {}).items():
        groups = [
            Interval(value, "human", part["alpha"], part["interval"] if None not in part["interval"] else None)
            for value, part in parts.items()
            if isinstance(part, Mapping) and part["alpha"] is not None
        ]
        if groups:
            yield interval_chart([("", groups[:MOST_BARS])], title=f"Alpha by {name}, 95% intervals")


def _margins(figures: Metrics, facts: Metrics) -> Iterator[Markup]:
    if margins := figures.get("margins"):
        least = Reference(margins["least"], f"least {margins['least']:g}")
        yield _histogram(margins["histogram"], ["rows"], title="Margins", axis=margins["source"], limit=least)
    length = figures.get("length")
    if not length:
        return
    bars = [
        Interval(
            f"{part['from']:g} to {part['to']:g} times" if part["to"] else f"{part['from']:g} times or more",
            "dpo",
            100 * part["longer_better"],
            None if None in part["interval"] else [100 * end for end in part["interval"]],
        )
        for part in length["by_ratio"]
        if part["pairs"] and part["longer_better"] is not None
    ]
    if bars:
        title = "The longer response is the better one, %, by how much longer it is"
        yield interval_chart([("", bars)], title=title, digits=1, origin=50)
    yield _histogram(
        length["lengths"], ["better", "worse"], title="Lengths, characters", axis="characters", of="responses"
    )


CHARTS: Mapping[str, Callable[[Metrics, Metrics], Iterator[Markup]]] = {
    "size": _size,
    "agreement": _agreement,
    "margins": _margins,
}
