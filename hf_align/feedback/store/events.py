"""Adding answers, skips and undos, and reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Select, false, func, insert, select, true, update

from hf_align.errors import UserError
from hf_align.feedback.records import Answer
from hf_align.feedback.store.connection import reading
from hf_align.feedback.store.queue import ADJUDICATOR, standing, standing_at
from hf_align.feedback.store.rows import read_answer
from hf_align.feedback.store.schema import annotators, answers, leases, tasks

PAGE = 2000
"""Events read at once."""
EVENT = [answers.c[field.name] for field in fields(Answer)]
"""Columns of an event, in the order of its fields."""


def find_event(connection: Connection, id: str, **owner: Any) -> Answer | None:
    """The event of an id, which a repeated request names again; None if there is none.

    Args:
        connection: A transaction.
        id: The event's.
        owner: Columns and their values that it must have.

    Raises:
        UserError: The id is another event's.
    """
    row = connection.execute(select(answers).where(answers.c.id == id)).mappings().first()
    if row is None:
        return None
    for name, value in owner.items():
        if row[name] != value:
            raise UserError(f"id {id!r} was already used for another {row['kind']}; make a new one for each")
    return read_answer(row)


def last_standing(connection: Connection, annotator: str) -> RowMapping | None:
    """The newest answer or skip of an annotator that was not undone."""
    newest = select(answers).where(answers.c.annotator == annotator, standing).order_by(answers.c.number.desc())
    return connection.execute(newest.limit(1)).mappings().first()


def add_answer(connection: Connection, id: str, task_id: str, annotator: str, values: Mapping[str, Any]) -> Answer:
    """Add an answer, or a skip where the preference is None; one that stands already is returned instead.

    Args:
        connection: A writing transaction.
        id: The event's, new.
        task_id: A task of the store.
        annotator: An annotator of the store.
        values: preference, left, confidence, reason, shown_at, answered_at, lease_id and details.
    """
    of_them = (answers.c.task_id == task_id, answers.c.annotator == annotator)
    attempt = connection.scalar(select(func.count()).where(*of_them, answers.c.undo == true())) or 0
    same_attempt = select(answers).where(*of_them, answers.c.attempt == attempt, answers.c.undo == false())
    row = connection.execute(same_attempt).mappings().first()
    if row is not None:
        return read_answer(row)
    kind = "skip" if values["preference"] is None else "answer"
    fixed = {"id": id, "task_id": task_id, "annotator": annotator, "kind": kind, "attempt": attempt, "undo": False}
    return _add(connection, {**values, **fixed}, given=int(kind == "answer") * _votes(connection, annotator))


def add_undo(connection: Connection, id: str, undone: RowMapping, now: float) -> Answer:
    """Add the undo of a standing event.

    Args:
        connection: A writing transaction.
        id: The undo's, new.
        undone: Row of the answer or skip.
        now: The time.
    """
    values = {
        **{name: undone[name] for name in ("task_id", "annotator", "left", "shown_at", "attempt", "lease_id")},
        **{"id": id, "kind": "undo", "undo": True, "preference": None, "confidence": None, "reason": None},
        **{"answered_at": now, "details": {"undoes": undone["id"]}},
    }
    given = -int(undone["kind"] == "answer") * _votes(connection, undone["annotator"])
    return _add(connection, values, given=given)


def count_again(connection: Connection, annotator: str, kind: str) -> None:
    """Have tasks count somebody's answers as votes, or no longer, as they become of another kind.

    Args:
        connection: A writing transaction.
        annotator: Name; of another kind in the database until this is done.
        kind: The kind they become.
    """
    change = int(kind != ADJUDICATOR) - _votes(connection, annotator)
    theirs = select(answers.c.task_id).where(answers.c.annotator == annotator, answers.c.kind == "answer", standing)
    if change:
        connection.execute(update(tasks).where(tasks.c.id.in_(theirs)).values(given=tasks.c.given + change))


def _votes(connection: Connection, annotator: str) -> int:
    """1 if somebody's answers are votes, 0 if they decide."""
    kind = connection.scalar(select(annotators.c.kind).where(annotators.c.name == annotator))
    return int(kind != ADJUDICATOR)


def _add(connection: Connection, values: dict[str, Any], *, given: int) -> Answer:
    connection.execute(insert(answers), values)
    if given:
        task = update(tasks).where(tasks.c.id == values["task_id"])
        connection.execute(task.values(given=tasks.c.given + given))
    # Not only the showing that was answered: the answer of an expired one may find the task given out again.
    showings = (leases.c.task_id == values["task_id"], leases.c.annotator == values["annotator"])
    connection.execute(update(leases).where(*showings).values(closed=True))
    return read_answer(connection.execute(select(answers).where(answers.c.id == values["id"])).mappings().one())


def read_events(engine: Engine, *, answers_only: bool = False) -> Iterator[Answer]:
    """Events, or the answers that stand, in the order of adding and as they are now.

    They are read a page at a time, each in a transaction of its own: a long loop holds nobody up, takes little memory,
    and isn't changed by what is added meanwhile, since events are only added.
    """
    with reading(engine) as connection:
        last = connection.scalar(select(func.max(answers.c.number))) or 0
    where = [standing_at(last), answers.c.kind == "answer"] if answers_only else [answers.c.number <= last]
    return _pages(engine, select(answers.c.number, *EVENT).where(*where).order_by(answers.c.number).limit(PAGE))


def _pages(engine: Engine, query: Select[Any]) -> Iterator[Answer]:
    after = 0
    while True:
        with reading(engine) as connection:
            rows = connection.execute(query.where(answers.c.number > after)).all()
        for row in rows:
            yield Answer(*tuple(row)[1:])
        if len(rows) < PAGE:
            return
        after = rows[-1][0]
