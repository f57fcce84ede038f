"""The parts that reports share as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from hf_align.report.sections import Section, Table
from hf_align.report.verdict import Verdict

MARKS = {"good": "good", "fair": "fair", "bad": "bad", "": "-"}
MOST_LINES = 8
"""Rows of a table shown; the page and the JSON have all."""


def head_lines(verdict: Verdict, remarks: Sequence[Any], facts: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """The verdict, the remarks and the facts.

    Args:
        verdict: The report's.
        remarks: (kind, sentence) pairs.
        facts: (label, text) pairs.
        width: Characters.
    """
    yield from wrapped(f"{verdict.title} {verdict.sentence}", width)
    for _, sentence in remarks:
        yield from wrapped(f"! {sentence}", width, "  ")
    for label, value in facts:
        yield from wrapped(f"{label:<10} {value}", width, " " * 11)


def section_lines(number: int, section: Section, width: int, *, tables: bool = True) -> Iterator[str]:
    """A section with its number, and its tables if wanted."""
    start = f"{number} {section.title}"
    mark = section.label or MARKS[section.grade]
    yield f"{start:<{width - max(5, len(mark) + 1)}} {mark:>4}" if not section.empty else start
    yield from wrapped(section.sentence, width, "  ", "  ")
    for table in section.tables if tables else ():
        yield from table_lines(table, width)


def table_lines(table: Table, width: int, most: int = MOST_LINES) -> Iterator[str]:
    """Columns aligned, at most so many rows; the first column gives way where the table is too wide."""
    rows = list(table.rows[:most])
    if table.title:
        yield f"    {table.title}"
    widths = [max(len(row[n]) for row in [table.columns, *rows]) for n in range(len(table.columns))]
    room = width - 4 - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(room, 12))
    for row in [table.columns, *rows]:
        first = f"{row[0][: widths[0] - 1]}…" if len(row[0]) > widths[0] else row[0]
        cells = [f"{first:<{widths[0]}}", *(f"{cell:>{size}}" for cell, size in zip(row[1:], widths[1:], strict=True))]
        yield f"    {'  '.join(cells)}".rstrip()
    if len(table.rows) > most:
        yield f"    and {len(table.rows) - most} more"


def fitting(table: Table, width: int) -> Table:
    """A table without the last columns that a line of `width` characters has no room for; it keeps two at least."""
    sizes = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    shown = len(sizes)
    while shown > 2 and 4 + sum(sizes[:shown]) + 2 * (shown - 1) > width:
        shown -= 1
    return replace(table, columns=table.columns[:shown], rows=[row[:shown] for row in table.rows])


def wrapped(text: str, width: int, later: str = "", first: str = "") -> list[str]:
    """A text in lines of at most `width` characters, indented by `first` and then by `later`."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )
