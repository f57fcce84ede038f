"""Rows of .csv and .tsv files: which columns hold numbers, which are texts whatever they look like."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from hf_align.data.layouts.texts import are_numbers, text_columns
from hf_align.data.row_files import FileProblem, check_names, check_start, numbered_lines

Kind = Literal["whole", "number", "truth", "text"]
"""What a cell looks like."""
Kinds = dict[str, set[Kind]]
"""What the cells of each column look like; empty ones aren't counted."""
Read = Literal["whole", "number", "truth", "text", "numbers where there are"]
"""How the cells of a column are read."""

_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity)\s*", re.IGNORECASE | re.ASCII)
_NO_NUMBER = re.compile(r"[+-]?0\d.*|\+\d+")  # numbers of houses, telephones and articles
_BITS = 2**63


def table_kinds(path: Path, suffix: str) -> Kinds:
    """Check that a table is UTF-8 and has one name for each column and one value for each name.

    Args:
        path: The file.
        suffix: ".csv", ".tsv", or one of these with ".gz"; the path's own may be missing.

    Raises:
        FileProblem: It isn't, or hasn't, or there are no rows.
    """
    check_start(path, suffix)
    lines = _lines(path, suffix)
    names = next(lines, [])
    check_names(names)
    kinds: list[set[Kind]] = [set() for _ in names]
    rows = 0
    for values in lines:
        rows += 1
        for kind, value in zip(kinds, values, strict=True):
            if value and "text" not in kind:
                kind.add(_kind(value))
    if not rows:
        raise FileProblem("it has no rows")
    return dict(zip(names, kinds, strict=True))


def how_to_read(tables: Iterable[Kinds]) -> dict[str, Read]:
    """How each column of tables that belong together is read.

    Prompts and responses are texts by their names; ratings, scores, margins and weights are numbers, cell by cell, by
    theirs: a cell that is none stays a text, and its row is refused. Any other column holds numbers, or true and false,
    if all its cells do. "007", an integer of more than 64 bits, "NA", "None" and dates are texts.

    Example:
        >>> from hf_align.data.csv_files import how_to_read
        >>> how_to_read([{"chosen": {"whole"}, "rating": {"whole", "text"}, "stars": {"whole", "number"}}])
        {'chosen': 'text', 'rating': 'numbers where there are', 'stars': 'number'}
    """
    kinds: Kinds = {}
    for table in tables:
        for name, seen in table.items():
            kinds[name] = kinds.get(name, set()) | seen
    texts = {*text_columns(list(kinds))}

    def read(name: str, seen: set[Kind]) -> Read:
        if name in texts:
            return "text"
        if len(seen) == 1 and "text" not in seen:
            return next(iter(seen))
        if seen == {"whole", "number"}:
            return "number"
        return "numbers where there are" if are_numbers(name) else "text"

    return {name: read(name, seen) for name, seen in kinds.items()}


def table_rows(path: Path, suffix: str, columns: Mapping[str, Read]) -> Iterator[dict[str, Any]]:
    """Rows of a table that `table_kinds` has checked, with None for empty cells; see `how_to_read` for `columns`."""
    lines = _lines(path, suffix)
    names = next(lines)
    for values in lines:
        yield {name: _value(cell, columns[name]) if cell else None for name, cell in zip(names, values, strict=True)}


def _lines(path: Path, suffix: str) -> Iterator[list[str]]:
    """The names, and the cells of each row; blank lines are left out."""
    csv.field_size_limit(1 << 30)
    separator = "\t" if suffix.startswith(".tsv") else ","
    reader = csv.reader((line for _, line in numbered_lines(path, suffix)), delimiter=separator, strict=True)
    names: list[str] = []
    try:
        for values in reader:
            names = names or values
            if values and len(values) != len(names):
                raise FileProblem(
                    f"line {reader.line_num} has {len(values)} values for {len(names)} columns; is a quote missing?"
                )
            if values:
                yield values
    except csv.Error as error:
        raise FileProblem(f"line {reader.line_num} is not CSV: {error}") from None


def _kind(cell: str) -> Kind:
    if _WHOLE.fullmatch(cell):
        return "whole" if -_BITS <= int(cell[:20]) < _BITS and len(cell) < 21 else "text"
    if cell in _TRUTHS:
        return "truth"
    return "number" if _NUMBER.fullmatch(cell) and not _NO_NUMBER.fullmatch(cell) else "text"


def _value(cell: str, read: Read) -> Any:
    if read == "whole":
        return int(cell)
    if read == "truth":
        return _TRUTHS[cell]
    if read == "number" or (read == "numbers where there are" and _NUMBER.fullmatch(cell)):
        return int(cell) if read != "number" and _kind(cell) == "whole" else float(cell)
    return cell
