"""A report on a reward model as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_align.report.reward_figures import Section, Table, decimal
from hf_align.report.reward_sections import benchmark_table, sections_of
from hf_align.report.reward_verdict import shown_facts, verdict_of

MARKS = {"good": "good", "fair": "fair", "bad": "bad", "": "-"}
MOST_LINES, WORST_SHOWN = 8, 3
"""Rows of a table and pairs shown; the page and the JSON have all."""


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
    lines = [*_wrapped(f"{verdict.title} {verdict.sentence}", width)]
    for _, sentence in remarks:
        lines += _wrapped(f"! {sentence}", width, "  ")
    for label, value in shown_facts(facts):
        lines += _wrapped(f"{label:<10} {value}", width, " " * 11)
    for number, section in enumerate(sections, start=1):
        lines += ["", *_section(number, section, width)]
    for row in (metrics.get("worst_rows") or ())[:WORST_SHOWN]:
        lines += _worst(row, width)
    if benchmark := facts.get("benchmark"):
        lines += ["", f"{benchmark['name']}, by its own formula", *_wrapped(benchmark["formula"], width, "  ", "  ")]
        lines += _table(benchmark_table(benchmark), width)
    return "\n".join(lines)


def _section(number: int, section: Section, width: int) -> Iterator[str]:
    start = f"{number} {section.title}"
    yield f"{start:<{width - 5}} {MARKS[section.grade]:>4}" if not section.empty else start
    yield from _wrapped(section.sentence, width, "  ", "  ")
    for table in section.tables if section.key != "worst_rows" else ():
        yield from _table(table, width)


def _worst(row: Mapping[str, Any], width: int) -> Iterator[str]:
    """A row in three lines."""
    for label, text in (
        (f"row {row['rows'][0]}", row["prompt"]),
        (f"better {decimal(row['better_score'])}", row["better"]),
        (f"worse {decimal(row['worse_score'])}", row["worse"]),
    ):
        yield f"    {label:<14} {textwrap.shorten(text, width - 20, placeholder=' …')}"


def _table(table: Table, width: int) -> Iterator[str]:
    """Columns aligned; the first one gives way where the table is too wide."""
    rows = list(table.rows[:MOST_LINES])
    if table.title:
        yield f"    {table.title}"
    widths = [max(len(row[n]) for row in [table.columns, *rows]) for n in range(len(table.columns))]
    room = width - 4 - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(room, 12))
    for row in [table.columns, *rows]:
        first = textwrap.shorten(row[0], widths[0], placeholder="…") if len(row[0]) > widths[0] else row[0]
        cells = [f"{first:<{widths[0]}}", *(f"{cell:>{size}}" for cell, size in zip(row[1:], widths[1:], strict=True))]
        yield f"    {'  '.join(cells)}".rstrip()
    if len(table.rows) > MOST_LINES:
        yield f"    and {len(table.rows) - MOST_LINES} more"


def _wrapped(text: str, width: int, later: str = "", first: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )
