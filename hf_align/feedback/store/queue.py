"""Choice of the task that an annotator gets next."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, exists, func, or_, select

from hf_align.feedback.store.schema import answers, leases, tasks

_undo = answers.alias("undo_event")
standing = and_(
    answers.c.undo.is_(False),
    ~exists().where(
        _undo.c.task_id == answers.c.task_id,
        _undo.c.annotator == answers.c.annotator,
        _undo.c.attempt == answers.c.attempt,
        _undo.c.undo.is_(True),
    ),
)
"""Condition that a row of `answers` is an answer or skip whose attempt was not undone."""


def held_lease(connection: Connection, annotator: str, now: float) -> RowMapping | None:
    """The newest open lease of an annotator that hasn't expired."""
    query = (
        select(leases)
        .where(leases.c.annotator == annotator, leases.c.closed.is_(False), leases.c.expires_at > now)
        .order_by(leases.c.leased_at.desc())
        .limit(1)
    )
    return connection.execute(query).mappings().first()


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
    name = annotator["name"]
    theirs, wants, given = _open_to(name, annotator["domains"], now)
    gold = select(tasks).where(tasks.c.gold.is_not(None), *theirs).order_by(tasks.c.number)
    asked = (
        select(tasks)
        .where(tasks.c.gold.is_(None), wants, *theirs)
        .order_by(tasks.c.priority.desc(), given.desc(), tasks.c.number)
        .limit(1)
    )
    count = connection.scalar(select(func.count()).where(answers.c.annotator == name)) or 0
    if draw(salt, name, count) < gold_share:
        rows = connection.execute(gold).mappings().all()
        if rows:
            return rows[int(draw(salt, name, count, "which") * len(rows))]
    return connection.execute(asked).mappings().first()


def count_open(connection: Connection, name: str, domains: Sequence[str], now: float) -> int:
    """Number of tasks, gold questions aside, that `next_task` may still give an annotator."""
    theirs, wants, _ = _open_to(name, domains, now)
    return connection.scalar(select(func.count()).select_from(tasks).where(tasks.c.gold.is_(None), wants, *theirs)) or 0


def _open_to(name: str, domains: Sequence[str], now: float) -> tuple[list[Any], Any, Any]:
    """Conditions on `tasks`: it is for this annotator, it wants answers beyond those given out; its answers' number."""
    done = select(answers.c.task_id).where(answers.c.annotator == name, standing)
    theirs: list[Any] = [tasks.c.id.not_in(done)]
    if domains:
        theirs.append(or_(tasks.c.domain.is_(None), tasks.c.domain.in_(domains)))
    given = select(func.count()).where(answers.c.task_id == tasks.c.id, answers.c.kind == "answer", standing)
    given = given.correlate(tasks).scalar_subquery()
    out = select(func.count()).where(
        leases.c.task_id == tasks.c.id,
        leases.c.closed.is_(False),
        leases.c.expires_at > now,
        leases.c.annotator != name,
    )
    return theirs, given + out.correlate(tasks).scalar_subquery() < tasks.c.wanted, given


def draw(*of: Any) -> float:
    """A number from [0, 1) that looks random, the same for the same values."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:7], "big") / 2**56
