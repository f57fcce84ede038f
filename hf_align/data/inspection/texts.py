"""Texts of a row as checks look at them, and rows with other texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hf_align.collators.rows import word_ends
from hf_align.data.inspection.records import BATCH, Record

SHOWN = 160
"""Characters of an example."""
SIDES = ("prompt", "chosen", "rejected", "responses")


class Look(NamedTuple):
    """A row that could be read.

    Attributes:
        record: The row.
        prompt: Its prompt's text, an implicit one too.
        responses: The responses' texts after it.
    """

    record: Record
    prompt: str
    responses: tuple[str, ...]


def look_at(record: Record) -> Look:
    """The texts of a row that could be read."""
    assert record.read is not None
    if record.read.prompt is not None:
        return Look(record, record.prompt, record.responses)
    end = next(word_ends(*record.responses), 0)
    return Look(record, record.responses[0][:end], tuple(text[end:] for text in record.responses))


class Repairs(Mapping[int, Mapping[str, Any]]):
    """New values of rows' columns, made when they are asked for, so that no text is kept.

    Args:
        rows: Row numbers; those whose repair changes nothing are left out.
        fetch: Rows by their numbers.
        repair: New values of a row's columns.
    """

    def __init__(
        self,
        rows: Sequence[int],
        fetch: Callable[[Sequence[int]], list[Record]],
        repair: Callable[[Record], Mapping[str, Any]],
    ) -> None:
        self._fetch, self._repair = fetch, repair
        self._rows = {
            record.number: None
            for start in range(0, len(rows), BATCH)
            for record in fetch(rows[start : start + BATCH])
            if repair(record)
        }

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        if number not in self._rows:
            raise KeyError(number)
        return self._repair(self._fetch([number])[0])

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def changed_columns(
    row: Mapping[str, Any], change: Callable[[str], str], columns: Sequence[str] = SIDES
) -> dict[str, Any]:
    """Columns in which a change of texts, or of messages' contents, changes something."""
    new = {name: _changed(row[name], change) for name in columns if name in row}
    return {name: value for name, value in new.items() if value != row[name]}


def shortened(text: str) -> str:
    """One line of a text's beginning."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(part, change) for part in value]
    if isinstance(value, dict):  # a message, or a part of its content
        return {key: _changed(part, change) if key in ("content", "text") else part for key, part in value.items()}
    return value
