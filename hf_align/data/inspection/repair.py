"""Rows without what an inspection would drop, and with its repairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import islice
from typing import Any

from datasets import Dataset, concatenate_datasets

from hf_align.collators.rows import without_nulls
from hf_align.data.inspection.findings import Finding
from hf_align.data.inspection.records import BATCH


def repaired(rows: Dataset, findings: Sequence[Finding]) -> Dataset:
    """The rows with all findings' changes, without those that any of them drops; in order.

    Args:
        rows: The rows that were inspected.
        findings: What was found in them.
    """
    dropped = dropped_rows(findings)
    numbers = sorted(changed_rows(findings) - dropped)
    order = [number for number in range(len(rows)) if number not in dropped]
    if not numbers:
        return rows if not dropped else rows.select(order)
    changed = [{**row, **new_values(row, findings, number)} for number, row in _fetched(rows, numbers)]
    place = {number: len(rows) + n for n, number in enumerate(numbers)}
    both = concatenate_datasets([rows, Dataset.from_list(changed, features=rows.features)])
    return both.select([place.get(number, number) for number in order])


def repaired_raw(
    raw: Iterable[Mapping[str, Any]], rows: Dataset, findings: Sequence[Finding]
) -> Iterator[Mapping[str, Any]]:
    """As `repaired`, of the rows as they stand in their file: Arrow adds the keys of other rows, and makes times.

    Args:
        raw: The file's rows, of which the first are `rows`.
        rows: The rows that were inspected.
        findings: What was found in them.
    """
    dropped, changed = dropped_rows(findings), changed_rows(findings)
    for number, row in enumerate(islice(raw, len(rows))):
        if number in dropped:
            continue
        new = without_nulls(new_values(rows[number], findings, number)) if number in changed else {}
        yield {**row, **new}


def log_of(rows: Dataset, findings: Sequence[Finding]) -> Iterator[dict[str, Any]]:
    """What `repaired` does to each row that it drops or changes, in order.

    Yields:
        "row" (its number), "action" ("dropped" or "changed"), "kinds" (of the findings that ask for it), "old" (the
        row, or the columns that change) and "new" (their new values, None for a dropped row).
    """
    dropped = dropped_rows(findings)
    numbers = sorted(dropped | changed_rows(findings))
    kinds: dict[int, list[str]] = {number: [] for number in numbers}
    for finding in findings:
        for number in map(int, finding.drop):
            kinds[number].append(finding.kind)
        for number in finding.changes:
            if number not in dropped:
                kinds[int(number)].append(finding.kind)
    for number, row in _fetched(rows, numbers):
        new = None if number in dropped else new_values(row, findings, number)
        old = row if new is None else {column: row[column] for column in new}
        action = "dropped" if new is None else "changed"
        yield {"row": number, "action": action, "kinds": kinds[number], "old": old, "new": new}


def dropped_rows(findings: Sequence[Finding]) -> set[int]:
    """Numbers of the rows that a finding drops."""
    return {int(number) for finding in findings for number in finding.drop}


def changed_rows(findings: Sequence[Finding]) -> set[int]:
    """Numbers of the rows that a finding changes."""
    return {int(number) for finding in findings for number in finding.changes}


def new_values(row: Mapping[str, Any], findings: Sequence[Finding], number: int) -> dict[str, Any]:
    """The changed columns of a row; several findings' changes of one column are merged."""
    new: dict[str, Any] = {}
    for finding in findings:
        for column, value in finding.changes.get(number, {}).items():
            new[column] = merged(row[column], new[column], value) if column in new else value
    return new


def merged(old: Any, one: Any, other: Any) -> Any:
    """A value with two changes of it. Where both change the same characters, the first one counts.

    Args:
        old: Text, messages, or any value.
        one: It after the first change.
        other: It after the second.

    Example:
        >>> from hf_align.data.inspection.repair import merged
        >>> merged("<s>The cafÃ©", "The cafÃ©", "<s>The café")
        'The café'
    """
    if one == old:
        return other
    if other in (old, one):
        return one
    if isinstance(old, str) and isinstance(one, str) and isinstance(other, str):
        return _merged_text(old, one, other)
    if isinstance(old, dict) and isinstance(one, dict) and isinstance(other, dict):
        return {key: merged(old.get(key), one.get(key), other.get(key)) for key in {**old, **one, **other}}
    lists = [value for value in (old, one, other) if isinstance(value, list)]
    if len(lists) == 3 and len({len(value) for value in lists}) == 1:
        return [merged(*values) for values in zip(*lists, strict=True)]
    return one


def _merged_text(old: str, one: str, other: str) -> str:
    edits = _edits(old, one)
    taken = list(edits)
    for start, end, new in _edits(old, other):
        if all(end < first or start > last for first, last, _ in taken):
            edits.append((start, end, new))
    for start, end, new in sorted(edits, reverse=True):
        old = old[:start] + new + old[end:]
    return old


def _edits(old: str, new: str) -> list[tuple[int, int, str]]:
    """(start, end, new text) of the parts of `old` that differ."""
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [(a, b, new[c:d]) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]


def _fetched(rows: Dataset, numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    for start in range(0, len(numbers), BATCH):
        part = list(numbers[start : start + BATCH])
        yield from zip(part, rows.select(part).to_list(), strict=True)
