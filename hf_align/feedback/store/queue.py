"""Choice of the task that an annotator gets next, and its lease."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, exists, false, func, insert, or_, select, true

from hf_align.feedback.records import Lease, Position
from hf_align.feedback.store.rows import read_lease, read_task
from hf_align.feedback.store.schema import answers, is_gold, leases, tasks, wants

_undo = answers.alias("undo_event")
_undone = exists().where(
    _undo.c.task_id == answers.c.task_id,
    _undo.c.annotator == answers.c.annotator,
    _undo.c.attempt == answers.c.attempt,
    _undo.c.undo == true(),
)
standing = and_(answers.c.undo == false(), ~_undone)
"""Condition that a row of `answers` is an answer or skip whose attempt was not undone."""


def standing_at(last: int) -> ColumnElement[bool]:
    """`standing` when the event of number `last` was the newest."""
    return and_(answers.c.number <= last, answers.c.undo == false(), ~_undone.where(_undo.c.number <= last))


def held_lease(connection: Connection, annotator: str, now: float) -> Lease | None:
    """The open lease of an annotator that hasn't expired; `PreferenceStore` gives nobody a second one."""
    query = (
        select(leases)
        .where(leases.c.annotator == annotator, leases.c.closed == false(), leases.c.expires_at > now)
        .order_by(leases.c.expires_at.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else lease_of(connection, row)


def lease_of(connection: Connection, row: RowMapping) -> Lease:
    """Lease of a row of `leases`, with its task."""
    task = connection.execute(select(tasks).where(tasks.c.id == row["task_id"])).mappings().one()
    return read_lease(row, read_task(task))


def give(connection: Connection, task: RowMapping, annotator: str, now: float, seconds: float, *, salt: str) -> Lease:
    """Add a lease of a task.

    The left side hangs on the task, the annotator and how often they were shown it: a lease keeps its side however
    often it is read.

    Args:
        connection: A writing transaction.
        task: The task's row.
        annotator: Who gets it.
        now: The time.
        seconds: Time until it may go to somebody else.
        salt: The store's.
    """
    showings = connection.scalar(
        select(func.count()).where(leases.c.task_id == task["id"], leases.c.annotator == annotator)
    )
    left: Position = "first" if draw(salt, "side", task["id"], annotator, showings) < 0.5 else "second"
    row = {"id": secrets.token_hex(16), "task_id": task["id"], "annotator": annotator, "left": left}
    row |= {"leased_at": now, "expires_at": now + seconds, "closed": False}
    connection.execute(insert(leases), row)
    return Lease(row["id"], read_task(task), annotator, left, now, row["expires_at"])


def next_task(
    connection: Connection, annotator: RowMapping, now: float, *, gold_share: float, salt: str
) -> RowMapping | None:
    """The task that an annotator gets next: one of theirs to answer that isn't fully answered or given out.

    A gold question comes with probability `gold_share`, drawn by a hash of the store's salt, the annotator and their
    number of answers: nobody can tell which, and asking again gives the same. Gold questions have no limit of answers.
    Otherwise the highest priority comes first, then a task already begun, then the oldest.

    Args:
        connection: A writing transaction.
        annotator: Their row.
        now: The time.
        gold_share: Share of gold questions while there are any left for this annotator.
        salt: The store's.
    """
    name, domains = annotator["name"], annotator["domains"]
    count = connection.scalar(select(func.count()).where(answers.c.annotator == name)) or 0
    number: int | None = None
    if draw(salt, name, count) < gold_share:
        gold = select(tasks.c.number).where(is_gold, *_theirs(name, domains)).order_by(tasks.c.number)
        numbers = connection.scalars(gold).all()
        if numbers:
            number = numbers[int(draw(salt, name, count, "which") * len(numbers))]
    if number is None:
        order = (tasks.c.priority.desc(), tasks.c.given.desc(), tasks.c.number)
        number = connection.scalar(_open_to(name, domains, now).order_by(*order).limit(1))
    return connection.execute(select(tasks).where(tasks.c.number == number)).mappings().first()


def count_open(connection: Connection, name: str, domains: Sequence[str], now: float) -> int:
    """Number of tasks, gold questions aside, that `next_task` may still give an annotator."""
    return connection.scalar(select(func.count()).select_from(_open_to(name, domains, now).subquery())) or 0


def _open_to(name: str, domains: Sequence[str], now: float) -> Any:
    """Numbers of the tasks, gold questions aside, that want answers beyond those given out and are this annotator's."""
    out = select(func.count()).where(
        leases.c.task_id == tasks.c.id,
        leases.c.closed == false(),
        leases.c.expires_at > now,
        leases.c.annotator != name,
    )
    free = tasks.c.given + out.correlate(tasks).scalar_subquery() < tasks.c.wanted
    return select(tasks.c.number).where(wants, free, *_theirs(name, domains))


def _theirs(name: str, domains: Sequence[str]) -> list[Any]:
    """Conditions that a task is of an annotator's domains, and they neither answered nor skipped it."""
    done = exists().where(answers.c.task_id == tasks.c.id, answers.c.annotator == name, standing).correlate(tasks)
    return [~done, or_(tasks.c.domain.is_(None), tasks.c.domain.in_(domains))] if domains else [~done]


def draw(*of: Any) -> float:
    """A number from [0, 1) that looks random, the same for the same values."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:7], "big") / 2**56
