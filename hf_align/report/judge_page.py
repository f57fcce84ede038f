"""A report on a judge, as a page and as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hf_align.report.charts.intervals import Interval, interval_chart
from hf_align.report.figures import Metrics
from hf_align.report.judge_sections import gap_label, judge_sections, judge_verdict, shown_facts
from hf_align.report.render import render_page
from hf_align.report.section_page import GRADES, bar, charts_of, known
from hf_align.report.section_text import head_lines, section_lines

METHOD = (
    f"{GRADES} Intervals are 95% bootstrap intervals over prompts, or where they are few over pairs with each text "
    "once or texts."
)


def render_judge_report(metrics: Metrics, facts: Metrics, remarks: Sequence[Any]) -> str:
    """Render the page.

    Args:
        metrics: The report's metrics.
        facts: Its facts.
        remarks: (kind, sentence) pairs.

    Returns:
        HTML. Text from models and data sets is escaped.
    """
    sections = judge_sections(metrics, facts)
    return render_page(
        "judge.html.j2",
        facts=facts,
        shown_facts=shown_facts(facts),
        verdict=judge_verdict(metrics),
        remarks=remarks,
        sections=sections,
        charts=charts_of(sections, metrics, {"agreement": _by_gap}),
        to_read=(),
        method=METHOD,
    )


def _by_gap(figures: Metrics) -> list[Markup]:
    """Agreement of judge and people in each bucket and over all pairs."""
    groups = []
    for part in [*figures["by_gap"], figures]:
        bars = [bar("judge", part, "judge", "reward")] if known(part["judge"]) else []
        bars += [bar("people", part, "people", "human")] if known(part["people"]) else []
        groups += [("all" if part is figures else gap_label(part), bars)] if bars else []
    if not groups:
        return []
    groups[-1][1].append(Interval("chance", "base", 50, None))
    return [interval_chart(groups, title="Agreement by gap, %, 95% intervals", digits=1, origin=50)]


def judge_report_text(
    metrics: Mapping[str, Any], facts: Mapping[str, Any], remarks: Sequence[Any], width: int = 100
) -> str:
    """The whole report, at most `width` characters wide where tables allow.

    Args:
        metrics: The report's metrics.
        facts: Its facts.
        remarks: (kind, sentence) pairs.
        width: Characters.
    """
    lines = [*head_lines(judge_verdict(metrics), remarks, shown_facts(facts), width)]
    for number, section in enumerate(judge_sections(metrics, facts), start=1):
        lines += ["", *section_lines(number, section, width)]
    return "\n".join(lines)
