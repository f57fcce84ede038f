"""A report on a reward model as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_align.report.figures import decimal
from hf_align.report.reward.sections import benchmark_table, sections_of
from hf_align.report.reward.verdict import TO_READ, shown_facts, verdict_of
from hf_align.report.section_text import head_lines, section_lines, table_lines, wrapped

WORST_SHOWN = 3
"""Pairs shown; the page and the JSON have all."""


def report_text(metrics: Mapping[str, Any], facts: Mapping[str, Any], remarks: Sequence[Any], width: int = 100) -> str:
    """The whole report, at most `width` characters wide where tables allow.

    Args:
        metrics: The report's metrics.
        facts: Its facts.
        remarks: (kind, sentence) pairs.
        width: Characters.
    """
    sections = sections_of(metrics, facts)
    verdict = verdict_of(sections, remarks)
    lines = [*head_lines(verdict, remarks, shown_facts(facts), width)]
    for number, section in enumerate(sections, start=1):
        lines += ["", *section_lines(number, section, width, tables=section.key not in TO_READ)]
        for row in (metrics.get("worst_rows") or ())[:WORST_SHOWN] if section.key == "worst_rows" else ():
            lines += _worst(row, width)
    if benchmark := facts.get("benchmark"):
        lines += ["", f"{benchmark['name']}, by its own formula", *wrapped(benchmark["formula"], width, "  ", "  ")]
        lines += table_lines(benchmark_table(benchmark), width)
    return "\n".join(lines)


def _worst(row: Mapping[str, Any], width: int) -> Iterator[str]:
    """A row in three lines."""
    for label, text in (
        (f"row {row['rows'][0]}", row["prompt"]),
        (f"better {decimal(row['better_score'])}", row["better"]),
        (f"worse {decimal(row['worse_score'])}", row["worse"]),
    ):
        yield f"    {label:<14} {textwrap.shorten(text, width - 20, placeholder=' …')}"
