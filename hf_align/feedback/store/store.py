"""The store itself: what is added, given out, answered and read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset
from sqlalchemy import Connection, RowMapping, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hf_align.data.parts import digest
from hf_align.errors import UserError
from hf_align.feedback.export.made import export_preferences
from hf_align.feedback.records import Annotator, Answer, EventKind, Lease, Progress, Prompt, Response, Showing, Task
from hf_align.feedback.store.connection import open_engine, reading, writing
from hf_align.feedback.store.queue import count_open, draw, held_lease, next_task, standing
from hf_align.feedback.store.rows import (
    prompt_row,
    read_annotator,
    read_answer,
    read_lease,
    read_prompt,
    read_response,
    read_task,
    response_row,
    task_row,
)
from hf_align.feedback.store.schema import (
    VERSION,
    annotators,
    answers,
    leases,
    meta,
    metadata,
    prompts,
    responses,
    tasks,
)

LEASE_SECONDS = 1800.0


class PreferenceStore:
    """A database of prompts, responses, tasks and answers.

    Answers are events that are only added: who, when, what was shown on which side, confidence, reason. Every method is
    one transaction, so several processes can use a store at once and a kill leaves all or nothing of a call.

    Args:
        url: Database URL as SQLAlchemy takes it. Default: the SQLite file prefs.db.
        clock: Seconds since 1970.

    Raises:
        UserError: The database can't be opened or is of a newer version.

    Example:
        >>> from hf_align.feedback import PreferenceStore, Prompt, Response, Task
        >>> store = PreferenceStore("sqlite://")
        >>> prompt = Prompt("Name a fruit.")
        >>> one, other = Response(prompt.id, "Apple.", "a"), Response(prompt.id, "Stone.", "b")
        >>> task = Task.of(one, other)
        >>> store.add(prompts=[prompt], responses=[one, other], tasks=[task])
        >>> lease = store.lease("anna")
        >>> answer = store.answer(lease.id, 1.0 if task.first_id == one.id else 0.0, id="click-1")
        >>> [answer.annotator for answer in store.answers()]
        ['anna']
    """

    def __init__(self, url: str = "sqlite:///prefs.db", *, clock: Callable[[], float] = time.time) -> None:
        self.url = url
        self.clock = clock
        self.engine = open_engine(url)
        with writing(self.engine) as connection:
            metadata.create_all(connection)
            if connection.execute(select(meta)).first() is None:
                rows = [{"key": "version", "value": VERSION}, {"key": "salt", "value": secrets.token_hex(16)}]
                connection.execute(insert(meta), rows)
            facts = {row.key: row.value for row in connection.execute(select(meta))}
        if facts["version"] > VERSION:
            raise UserError(
                f"store {url} has version {facts['version']}, this hf_align reads up to {VERSION}: upgrade it"
            )
        self._salt: str = facts["salt"]

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @property
    def id(self) -> str:
        """Names the store in what is exported of it."""
        return digest(["store", self._salt])[:12]

    def pseudonym(self, annotator: str) -> str:
        """What an annotator is called in exports: a digest with a secret of the store, the same every time."""
        return f"annotator-{digest(['annotator', self._salt, annotator])[:12]}"

    # Adding

    def add(
        self,
        *,
        prompts: Iterable[Prompt] = (),
        responses: Iterable[Response] = (),
        tasks: Iterable[Task] = (),
        annotators: Iterable[Annotator] = (),
    ) -> None:
        """Add records; those that are there already stay as they are.

        Args:
            prompts: Prompts.
            responses: Responses to prompts of the store or of this call.
            tasks: Tasks on responses of the store or of this call.
            annotators: Annotators.
        """
        now = self.clock()
        with writing(self.engine) as connection:
            _insert_new(connection, _TABLES["prompts"], [prompt_row(prompt) for prompt in prompts], now)
            _insert_new(connection, _TABLES["responses"], [response_row(response) for response in responses], now)
            _insert_new(connection, _TABLES["tasks"], [task_row(task) for task in tasks], now)
            for annotator in annotators:
                _know(connection, annotator, now)

    def want(self, task_id: str, wanted: int) -> None:
        """Ask for more answers to a task: at least `wanted` in all."""
        with writing(self.engine) as connection:
            connection.execute(
                update(tasks).where(tasks.c.id == task_id, tasks.c.wanted < wanted).values(wanted=wanted)
            )

    # Giving out and answering

    def lease(self, annotator: str, *, seconds: float = LEASE_SECONDS, gold_share: float = 0.1) -> Lease | None:
        """Give an annotator a task: the one they hold, else the next one.

        Args:
            annotator: Name; added as a person if unknown.
            seconds: Time until the task may go to somebody else.
            gold_share: Share of gold questions, while there are any that they haven't answered.

        Returns:
            The lease, or None if nothing is left for them.
        """
        now = self.clock()
        with writing(self.engine) as connection:
            who = _know(connection, Annotator(annotator), now)
            held = held_lease(connection, annotator, now)
            if held is not None:
                return read_lease(held, read_task(_row(connection, tasks, held["task_id"])))
            row = next_task(connection, who, now, gold_share=gold_share, salt=self._salt)
            if row is None:
                return None
            return self._give(connection, row, annotator, now, seconds)

    def answer(
        self,
        lease_id: str,
        preference: float | None,
        *,
        id: str,
        confidence: float | None = None,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Take the answer to a leased task.

        A repeated `id`, or a second answer to the same showing, adds nothing and returns the first. An answer after
        the lease's end counts.

        Args:
            lease_id: The lease.
            preference: 1 for the first response, 0 for the second, .5 for a tie; None: skipped.
            id: Made by the client, one per answer.
            confidence: From 0 to 1.
            reason: Text.
            details: Anything else to keep.

        Raises:
            UserError: The lease is unknown, or a value is out of range.
        """
        for name, value in (("preference", preference), ("confidence", confidence)):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} is {value}; give a number from 0 to 1")
        now = self.clock()
        with writing(self.engine) as connection:
            lease = connection.execute(select(leases).where(leases.c.id == lease_id)).mappings().first()
            if lease is None:
                raise UserError(f"the store has no lease {lease_id!r}")
            kind: EventKind = "skip" if preference is None else "answer"
            attempt = _undos(connection, lease["task_id"], lease["annotator"])
            values = {
                **{"id": id, "task_id": lease["task_id"], "annotator": lease["annotator"], "kind": kind},
                **{"preference": preference, "left": lease["left"], "confidence": confidence, "reason": reason},
                **{"shown_at": lease["leased_at"], "answered_at": now, "attempt": attempt, "undo": False},
                **{"lease_id": lease_id, "details": dict(details or {})},
            }
            return _add_event(connection, values)

    def undo(self, annotator: str, *, id: str, seconds: float = LEASE_SECONDS) -> Lease | None:
        """Take an annotator's newest standing answer or skip back and give them its task again.

        Args:
            annotator: Name.
            id: Made by the client, one per undo; a repeated one adds nothing.
            seconds: As in `lease`.

        Returns:
            The new lease; None if there is nothing to undo.
        """
        now = self.clock()
        with writing(self.engine) as connection:
            done = connection.scalar(select(answers.c.id).where(answers.c.id == id))
            if done is not None:
                held = held_lease(connection, annotator, now)
                return None if held is None else read_lease(held, read_task(_row(connection, tasks, held["task_id"])))
            newest = select(answers).where(answers.c.annotator == annotator, standing)
            last = connection.execute(newest.order_by(answers.c.number.desc()).limit(1)).mappings().first()
            if last is None:
                return None
            values = {
                **{"id": id, "task_id": last["task_id"], "annotator": annotator, "kind": "undo", "preference": None},
                **{"left": last["left"], "confidence": None, "reason": None, "shown_at": last["shown_at"]},
                **{"answered_at": now, "attempt": last["attempt"], "undo": True, "lease_id": last["lease_id"]},
            }
            _add_event(connection, {**values, "details": {"undoes": last["id"]}})
            connection.execute(
                update(leases).where(leases.c.annotator == annotator, leases.c.closed.is_(False)).values(closed=True)
            )
            return self._give(connection, _row(connection, tasks, last["task_id"]), annotator, now, seconds)

    def find_lease(self, lease_id: str) -> Lease | None:
        """The lease of an id, open or closed; None if there is none."""
        with reading(self.engine) as connection:
            row = connection.execute(select(leases).where(leases.c.id == lease_id)).mappings().first()
            return None if row is None else read_lease(row, read_task(_row(connection, tasks, row["task_id"])))

    def release(self, lease_id: str) -> None:
        """Give a leased task back."""
        with writing(self.engine) as connection:
            connection.execute(update(leases).where(leases.c.id == lease_id).values(closed=True))

    def want_each(self, wanted: Mapping[str, int]) -> None:
        """Ask for more answers to several tasks, as `want`, in one transaction."""
        with writing(self.engine) as connection:
            for id, number in wanted.items():
                connection.execute(update(tasks).where(tasks.c.id == id, tasks.c.wanted < number).values(wanted=number))

    def record(self, task_id: str, annotator: str, preference: float | None, *, id: str, **fields: Any) -> Answer:
        """Add the answer of somebody who was shown nothing by this store: a model, or an import.

        Args:
            task_id: The task.
            annotator: Name; added as a model if unknown.
            preference: As in `answer`.
            id: As in `answer`.
            fields: `confidence`, `reason`, `shown_at`, `left`, `details` of `Answer`.
        """
        now = self.clock()
        with writing(self.engine) as connection:
            _know(connection, Annotator(annotator, "model"), now)
            attempt = _undos(connection, task_id, annotator)
            given = {"left": None, "confidence": None, "reason": None, "shown_at": None, "details": {}, **fields}
            values = {
                **{"id": id, "task_id": task_id, "annotator": annotator, "preference": preference, **given},
                **{"kind": "skip" if preference is None else "answer", "answered_at": now, "attempt": attempt},
                **{"undo": False, "lease_id": None},
            }
            return _add_event(connection, values)

    # Reading

    def showing(self, lease: Lease) -> Showing:
        """Prompt and responses of a leased task, on the sides on which they are shown."""
        task = lease.task
        with reading(self.engine) as connection:
            prompt = read_prompt(_row(connection, prompts, task.prompt_id))
            first, second = (read_response(_row(connection, responses, id)) for id in (task.first_id, task.second_id))
        return Showing(lease, prompt, *((first, second) if lease.left == "first" else (second, first)))

    def progress(self, annotator: str) -> Progress:
        """How much an annotator has answered and skipped, and how much is left for them; an unknown name has all left.

        Example:
            >>> from hf_align.feedback import PreferenceStore
            >>> PreferenceStore("sqlite://").progress("anna")
            Progress(answered=0, skipped=0, left=0)
        """
        with reading(self.engine) as connection:
            domains = connection.scalar(select(annotators.c.domains).where(annotators.c.name == annotator)) or []
            left = count_open(connection, annotator, domains, self.clock())
            kinds = select(answers.c.kind, func.count()).where(answers.c.annotator == annotator, standing)
            given = {row[0]: row[1] for row in connection.execute(kinds.group_by(answers.c.kind))}
        return Progress(given.get("answer", 0), given.get("skip", 0), left)

    def prompts(self) -> dict[str, Prompt]:
        """Prompts by id, in the order of adding."""
        return {prompt.id: prompt for prompt in map(read_prompt, self._rows(prompts))}

    def responses(self) -> dict[str, Response]:
        """Responses by id, in the order of adding."""
        return {response.id: response for response in map(read_response, self._rows(responses))}

    def tasks(self) -> dict[str, Task]:
        """Tasks by id, in the order of adding."""
        return {task.id: task for task in map(read_task, self._rows(tasks))}

    def annotators(self) -> dict[str, Annotator]:
        """Annotators by name."""
        return {annotator.name: annotator for annotator in map(read_annotator, self._rows(annotators))}

    def events(self) -> Iterator[Answer]:
        """All answers, skips and undos in the order of adding."""
        return map(read_answer, self._rows(answers))

    def answers(self) -> Iterator[Answer]:
        """The answers that stand, in the order of adding: no skips, nothing undone."""
        return map(read_answer, self._rows(answers, standing, answers.c.kind == "answer"))

    def export(self, **options: Any) -> Dataset:
        """The answers as a preference data set, for the trainers here and TRL's; logs one line.

        `export_preferences` explains the rows, and gives splits and statistics, too.

        Args:
            options: Fields of `hf_align.feedback.export.ExportOptions` but `test_share`.

        Raises:
            UserError: Nothing can be exported, or an option is unknown or out of range.
        """
        if options.get("test_share"):
            raise UserError(
                "export gives one data set; for splits use export_preferences(store, test_share=...).splits"
            )
        return export_preferences(self, **options).rows

    def _rows(self, table: Table, *where: Any) -> Sequence[RowMapping]:
        order = table.c.number if "number" in table.c else table.c.added_at
        with reading(self.engine) as connection:
            return connection.execute(select(table).where(*where).order_by(order)).mappings().all()

    def _give(self, connection: Connection, task: RowMapping, annotator: str, now: float, seconds: float) -> Lease:
        showings = connection.scalar(
            select(func.count()).where(leases.c.task_id == task["id"], leases.c.annotator == annotator)
        )
        # The side hangs on the showing alone, so that no reload draws it anew.
        left = "first" if draw(self._salt, "side", task["id"], annotator, showings) < 0.5 else "second"
        row = {"id": secrets.token_hex(16), "task_id": task["id"], "annotator": annotator, "left": left}
        row |= {"leased_at": now, "expires_at": now + seconds, "closed": False}
        connection.execute(insert(leases), row)
        return Lease(row["id"], read_task(task), annotator, left, now, row["expires_at"])


_TABLES = {"prompts": prompts, "responses": responses, "tasks": tasks}
PART = 400
"""Ids in one query: SQLite limits its parameters."""


def _insert_new(connection: Connection, table: Table, rows: Iterable[dict[str, Any]], now: float) -> None:
    new = {row["id"]: {**row, "added_at": now} for row in rows}
    ids = list(new)
    for start in range(0, len(ids), PART):
        there = select(table.c.id).where(table.c.id.in_(ids[start : start + PART]))
        for id in connection.scalars(there):
            del new[id]
    if new:
        connection.execute(insert(table), list(new.values()))


def _know(connection: Connection, annotator: Annotator, now: float) -> RowMapping:
    find = select(annotators).where(annotators.c.name == annotator.name)
    row = connection.execute(find).mappings().first()
    if row is None:
        names = ("name", "kind", "group", "right", "wrong")
        values = {**{name: getattr(annotator, name) for name in names}, "domains": list(annotator.domains)}
        connection.execute(insert(annotators), {**values, "added_at": now})
        row = connection.execute(find).mappings().one()
    return row


def _row(connection: Connection, table: Table, id: str) -> RowMapping:
    return connection.execute(select(table).where(table.c.id == id)).mappings().one()


def _undos(connection: Connection, task_id: str, annotator: str) -> int:
    query = select(func.count()).where(
        answers.c.task_id == task_id, answers.c.annotator == annotator, answers.c.undo.is_(True)
    )
    return connection.scalar(query) or 0


def _add_event(connection: Connection, values: dict[str, Any]) -> Answer:
    same = [answers.c.id == values["id"]]
    one = [answers.c[name] == values[name] for name in ("task_id", "annotator", "attempt", "undo")]
    for where in (same, one):
        row = connection.execute(select(answers).where(*where)).mappings().first()
        if row is not None:
            return read_answer(row)
    try:
        connection.execute(insert(answers), values)
    except IntegrityError as error:
        raise UserError(f"the answer names a task that the store lacks: {error.orig}") from None
    if values["lease_id"] is not None:
        connection.execute(update(leases).where(leases.c.id == values["lease_id"]).values(closed=True))
    return read_answer(connection.execute(select(answers).where(*same)).mappings().one())
