"""A report on policies as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_align.report.figures import decimal
from hf_align.report.policy.compared import label_of
from hf_align.report.policy.sections import policy_sections
from hf_align.report.policy.verdict import policy_verdict, shown_facts
from hf_align.report.section_text import head_lines, section_lines

SHOWN = 3
"""Prompts shown of each list; the page and the JSON have all."""


def policy_report_text(
    metrics: Mapping[str, Any], facts: Mapping[str, Any], remarks: Sequence[Any], width: int = 100
) -> str:
    """The whole report, at most `width` characters wide where tables allow.

    Args:
        metrics: The report's metrics.
        facts: Its facts.
        remarks: (kind, sentence) pairs.
        width: Characters.
    """
    sections = policy_sections(metrics, facts)
    verdict = policy_verdict(metrics, facts, sections, remarks)
    lines = [*head_lines(verdict, remarks, shown_facts(facts), width)]
    for number, section in enumerate(sections, start=1):
        lines += ["", *section_lines(number, section, width)]
        if section.key == "best_and_worst" and not section.empty:
            lines += _to_read(metrics["best_and_worst"], facts, width)
    return "\n".join(lines)


def _to_read(figures: Mapping[str, Any], facts: Mapping[str, Any], width: int) -> Iterator[str]:
    """The first prompts of each list, in three lines each."""
    reference = label_of(facts["reference"], facts)
    for name, lists in figures.items():
        for title, rows in lists.items():
            for row in rows[:SHOWN]:
                for label, text in (
                    (f"{title}, row {row['row']}", row["prompt"]),
                    (f"{label_of(name, facts)} {decimal(row['score'])}", row["response"]),
                    (f"{reference} {decimal(row['reference_score'])}", row["reference_response"]),
                ):
                    label = textwrap.shorten(label, 20, placeholder="…")
                    yield f"    {label:<20} {textwrap.shorten(text, width - 26, placeholder=' …')}"
