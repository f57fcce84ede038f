"""Adding prompts, responses, tasks and annotators: what is there already stays, and what is named must be there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, insert, select

from hf_align.errors import UserError
from hf_align.feedback.store.schema import annotators, prompts, responses, tasks

Row = Mapping[str, Any]
PART = 400
"""Ids in one query: SQLite limits its parameters."""


def add_prompts(connection: Connection, rows: Sequence[Row], now: float) -> None:
    """Add prompts that are new."""
    for part in _new(connection, prompts, rows):
        _insert(connection, prompts, part, now)


def add_responses(connection: Connection, rows: Sequence[Row], now: float) -> None:
    """Add responses that are new.

    Raises:
        UserError: A prompt is missing.
    """
    for part in _new(connection, responses, rows):
        present = _find(connection, prompts.c.id, [row["prompt_id"] for row in part])
        for row in part:
            if row["prompt_id"] not in present:
                raise UserError(
                    f"a response of {row['source']!r} names the prompt {row['prompt_id']!r}, which the store lacks; "
                    "add the prompt before it or in the same call"
                )
        _insert(connection, responses, part, now)


def add_tasks(connection: Connection, rows: Sequence[Row], now: float) -> None:
    """Add tasks that are new.

    Raises:
        UserError: A response is missing, or is one to another prompt.
    """
    for part in _new(connection, tasks, rows):
        named = [row[side] for row in part for side in ("first_id", "second_id")]
        prompt_of = _find(connection, responses.c.id, named, responses.c.prompt_id)
        for row in part:
            for side in ("first_id", "second_id"):
                if row[side] not in prompt_of:
                    raise UserError(
                        f"a task names the response {row[side]!r}, which the store lacks; "
                        "add the response before it or in the same call"
                    )
                if prompt_of[row[side]] != row["prompt_id"]:
                    raise UserError(f"a task's response {row[side]!r} is one to another prompt; make it with Task.of")
        _insert(connection, tasks, part, now)


def know(connection: Connection, row: Row, now: float) -> RowMapping:
    """The annotator of a name, added if it is new."""
    find = select(annotators).where(annotators.c.name == row["name"])
    known = connection.execute(find).mappings().first()
    if known is None:
        connection.execute(insert(annotators), {**row, "added_at": now})
        known = connection.execute(find).mappings().one()
    return known


def _new(connection: Connection, table: Table, rows: Sequence[Row]) -> Iterator[list[Row]]:
    for start in range(0, len(rows), PART):
        part = {row["id"]: row for row in rows[start : start + PART]}
        present = _find(connection, table.c.id, list(part))
        new = [row for id, row in part.items() if id not in present]
        if new:
            yield new


def _find(connection: Connection, key: Any, ids: Sequence[str], value: Any = None) -> dict[str, Any]:
    """Value by id of those of the ids that are there."""
    found: dict[str, Any] = {}
    for start in range(0, len(ids), PART):
        query = select(key, key if value is None else value).where(key.in_(ids[start : start + PART]))
        found |= {row[0]: row[1] for row in connection.execute(query)}
    return found


def _insert(connection: Connection, table: Table, rows: Sequence[Row], now: float) -> None:
    connection.execute(insert(table), [{**row, "added_at": now} for row in rows])
