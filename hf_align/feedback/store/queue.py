"""Choice of the task that an annotator gets next, and its lease."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    String,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    true,
    tuple_,
)

from hf_align.feedback.records import Lease, Position, Progress
from hf_align.feedback.store.rows import read_lease, read_task
from hf_align.feedback.store.schema import NUMBER, annotators, answers, is_gold, leases, meta, tasks, wants

_undo = answers.alias("undo_event")
_undone = exists().where(
    _undo.c.task_id == answers.c.task_id,
    _undo.c.annotator == answers.c.annotator,
    _undo.c.attempt == answers.c.attempt,
    _undo.c.undo == true(),
)
standing = and_(answers.c.undo == false(), ~_undone)
"""Condition that a row of `answers` is an answer or skip whose attempt was not undone."""
ADJUDICATOR = "adjudicator"
"""Kind of annotators whose answer decides a task and is no vote."""
decided = tasks.c.id.in_(
    select(answers.c.task_id)
    .join_from(annotators, answers, annotators.c.name == answers.c.annotator)
    .where(annotators.c.kind == ADJUDICATOR, answers.c.kind == "answer", standing)
)
"""Condition that an adjudicator's answer to a task stands. It starts from their answers, which are few."""
# Parts of statements on an annotator, at a time: they are made once, since making them takes as long as asking them.
NAME, NOW = bindparam("of_name", type_=String), bindparam("at_time", type_=NUMBER)


def _by_adjudicator(table: Any) -> Any:
    """Condition that a row of `leases` is an adjudicator's."""
    same = annotators.c.name == table.c.annotator
    return exists().where(same, annotators.c.kind == ADJUDICATOR).correlate(table)


_undone_of = select(_undo.c.task_id, _undo.c.attempt).where(_undo.c.annotator == NAME, _undo.c.undo == true())
# The attempts that somebody undid are read once: looking for each row's undo takes twice as long.
_standing_of = and_(
    answers.c.annotator == NAME,
    answers.c.undo == false(),
    tuple_(answers.c.task_id, answers.c.attempt).not_in(_undone_of),
)
"""Condition that a row of `answers` is an answer or skip of NAME whose attempt was not undone."""
_done = select(answers.c.task_id).where(answers.c.task_id == tasks.c.id, _standing_of).correlate(tasks).exists()
"""Condition that an answer of NAME to a task, or their skip, stands."""
_task, _lease = tasks.alias("task_out"), leases.alias("lease_of_it")
_out = select(func.count()).where(
    _lease.c.task_id == _task.c.id,
    _lease.c.closed == false(),
    _lease.c.expires_at > NOW,
    _lease.c.annotator != NAME,
    ~_by_adjudicator(_lease),
)
_taken = (
    select(_task.c.number)
    .join_from(leases, _task, _task.c.id == leases.c.task_id)
    .where(leases.c.annotator.in_(select(annotators.c.name).where(annotators.c.name != NAME)))
    .where(leases.c.closed == false(), leases.c.expires_at > NOW)
    .where(_task.c.given + _out.correlate(_task).scalar_subquery() >= _task.c.wanted)
)
"""Numbers of the tasks that have all their answers once those given out to others than NAME come.

It starts from the tasks that are out, which are few, and finds them by annotator: so the index on leases begins.
"""
OPEN = "open"
"""Key of `meta` under which the ids of open tasks stand, as collecting last found them."""
GOLD_SHARE = "gold_share"
"""Key of `meta` under which the collection's share of gold questions stands."""
DEFAULT_GOLD_SHARE = 0.1
PART = 400
"""Ids in one query: SQLite limits its parameters."""


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
    """The task that an annotator gets next: one of theirs that isn't fully answered or given out, nor adjudicated.

    An adjudicator gets the oldest open task that no adjudicator has decided or holds, and nothing else.
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
    if annotator["kind"] == ADJUDICATOR:
        first = next(_to_decide(connection, name, domains, now), None)
        return connection.execute(select(tasks).where(tasks.c.number == first)).mappings().first()
    count = connection.scalar(select(func.count()).where(answers.c.annotator == name)) or 0
    of_them = {"of_name": name, "at_time": now}
    theirs = [~_done, *_of_domains(domains)]
    number: int | None = None
    if draw(salt, name, count) < gold_share:
        gold = select(tasks.c.number).where(is_gold, *theirs).order_by(tasks.c.number)
        numbers = connection.scalars(gold, of_them).all()
        if numbers:
            number = numbers[int(draw(salt, name, count, "which") * len(numbers))]
    if number is None:
        order = (tasks.c.priority.desc(), tasks.c.given.desc(), tasks.c.number)
        free = select(tasks.c.number).where(wants, tasks.c.number.not_in(_taken), ~decided, *theirs)
        number = connection.scalar(free.order_by(*order).limit(1), of_them)
    return connection.execute(select(tasks).where(tasks.c.number == number)).mappings().first()


def count_progress(connection: Connection, name: str, annotator: RowMapping | None, now: float) -> Progress:
    """What an annotator answered and skipped, and how many tasks, gold questions aside, `next_task` may give them.

    It takes away what is theirs from all that is wanted, since looking at each wanted task would take longer.
    """
    domains = [] if annotator is None else annotator["domains"]
    theirs = [wants, ~decided, *_of_domains(domains)]
    answer, skip = (func.count(case((answers.c.kind == kind, 1))) for kind in ("answer", "skip"))
    wanted_ones = and_(answers.c.task_id == tasks.c.id, *theirs)
    events = select(answer, skip, func.count(tasks.c.id)).select_from(answers).outerjoin(tasks, wanted_ones)
    answered, skipped, done = connection.execute(events.where(_standing_of), {"of_name": name}).one()
    if annotator is not None and annotator["kind"] == ADJUDICATOR:
        return Progress(answered, skipped, sum(1 for _ in _to_decide(connection, name, domains, now)))
    wanted = connection.scalar(select(func.count()).select_from(tasks).where(*theirs)) or 0
    taken = select(func.count()).select_from(tasks).where(tasks.c.number.in_(_taken), *theirs, ~_done)
    out = connection.scalar(taken, {"of_name": name, "at_time": now}) or 0
    return Progress(answered, skipped, wanted - done - out)


def keep(connection: Connection, key: str, value: Any) -> None:
    """Keep a value in `meta`, instead of the one before."""
    connection.execute(delete(meta).where(meta.c.key == key))
    connection.execute(insert(meta), {"key": key, "value": value})


def kept(connection: Connection, key: str) -> Any:
    """The value of a key of `meta`; None if there is none."""
    return connection.scalar(select(meta.c.value).where(meta.c.key == key))


def kept_gold_share(connection: Connection) -> float:
    """The collection's share of gold questions, or the default."""
    share = kept(connection, GOLD_SHARE)
    return DEFAULT_GOLD_SHARE if share is None else share


def _to_decide(connection: Connection, name: str, domains: Sequence[str], now: float) -> Iterator[int]:
    """Numbers of the open tasks that are this adjudicator's and that no adjudicator has decided or another holds."""
    held = exists().where(
        leases.c.task_id == tasks.c.id,
        leases.c.closed == false(),
        leases.c.expires_at > now,
        leases.c.annotator != name,
        _by_adjudicator(leases),
    )
    free = (~held.correlate(tasks), ~decided, ~_done, *_of_domains(domains))
    ids = kept(connection, OPEN) or []
    for start in range(0, len(ids), PART):
        part = tasks.c.id.in_(ids[start : start + PART])
        numbers = select(tasks.c.number).where(part, *free).order_by(tasks.c.number)
        yield from connection.scalars(numbers, {"of_name": name}).all()


def _of_domains(domains: Sequence[str]) -> list[Any]:
    """Conditions that a task is of an annotator's domains; they may have any if they name none."""
    return [or_(tasks.c.domain.is_(None), tasks.c.domain.in_(domains))] if domains else []


def draw(*of: Any) -> float:
    """A number from [0, 1) that looks random, the same for the same values."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:7], "big") / 2**56
