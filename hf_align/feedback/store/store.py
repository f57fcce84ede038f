"""The store itself: what is added, given out, answered and read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from datasets import Dataset
from sqlalchemy import Connection, RowMapping, Table, func, select, update

from hf_align.data.parts import digest
from hf_align.errors import UserError
from hf_align.feedback.export.made import export_preferences
from hf_align.feedback.records import (
    Annotator,
    Answer,
    Lease,
    Position,
    Progress,
    Prompt,
    Response,
    Showing,
    Task,
)
from hf_align.feedback.store.adding import add_prompts, add_responses, add_tasks, know
from hf_align.feedback.store.checks import check_id, check_json, check_number, check_share, check_text, check_wanted
from hf_align.feedback.store.connection import open_engine, reading, writing
from hf_align.feedback.store.describe import describe_store, no_collector
from hf_align.feedback.store.events import add_answer, add_undo, count_again, find_event, last_standing, read_events
from hf_align.feedback.store.migrations import prepare
from hf_align.feedback.store.queue import (
    GOLD_SHARE,
    OPEN,
    count_progress,
    give,
    held_lease,
    keep,
    kept,
    lease_of,
    next_task,
)
from hf_align.feedback.store.rows import (
    annotator_row,
    prompt_row,
    read_annotator,
    read_answer,
    read_prompt,
    read_response,
    read_task,
    response_row,
    task_row,
)
from hf_align.feedback.store.schema import annotators, answers, leases, prompts, responses, tasks

LEASE_SECONDS = 1800.0
DEFAULT_GOLD_SHARE = 0.1


class PreferenceStore:
    """A database of prompts, responses, tasks and answers.

    Answers are events that are only added: who, when, what was shown on which side, confidence, reason. Every method is
    one transaction, and one writes at a time: threads and processes can use a store at once, and a kill leaves all or
    nothing of a call. A store of an older version is migrated when it is opened.

    Args:
        url: Database URL as SQLAlchemy takes it; SQLite and PostgreSQL are tested. Default: the SQLite file prefs.db.
        clock: Seconds since 1970.

    Raises:
        UserError: The database can't be opened, is another program's, or is of a newer version. Every method raises it
            for values that can't be stored, and when the database can't be reached, written, or is locked for too
            long.

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
        try:
            self._salt: str = prepare(self.engine)["salt"]
        except BaseException:
            self.engine.dispose()
            raise

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

        Raises:
            UserError: A response's prompt or a task's response is missing, or a field can't be stored; nothing of the
                call is kept.
        """
        now = self.clock()
        # All is made before the transaction: an iterator may take its time.
        prompt_rows = [prompt_row(prompt) for prompt in prompts]
        response_rows = [response_row(response) for response in responses]
        task_rows = [task_row(task) for task in tasks]
        annotator_rows = [annotator_row(annotator) for annotator in annotators]
        with writing(self.engine) as connection:
            add_prompts(connection, prompt_rows, now)
            add_responses(connection, response_rows, now)
            add_tasks(connection, task_rows, now)
            for row in annotator_rows:
                know(connection, row, now)

    def update_annotator(self, annotator: str, **changes: Any) -> Annotator:
        """Change what is known of an annotator.

        Args:
            annotator: Name.
            changes: Any of kind, group, domains, right and wrong; see `Annotator`. With another kind, what they hold
                goes back into the queue.

        Returns:
            The annotator as changed.

        Raises:
            UserError: The annotator is unknown, or a value is out of range.

        Example:
            >>> from hf_align.feedback import Annotator, PreferenceStore
            >>> store = PreferenceStore("sqlite://")
            >>> store.add(annotators=[Annotator("anna")])
            >>> store.update_annotator("anna", group="teachers", right=18, wrong=2).group
            'teachers'
        """
        fixed = set(changes) - {"kind", "group", "domains", "right", "wrong"}
        if fixed:
            raise UserError(
                f"update_annotator can't change {min(fixed)!r}; it changes kind, group, domains, right and wrong"
            )
        with writing(self.engine) as connection:
            one = annotators.c.name == annotator
            row = connection.execute(select(annotators).where(one)).mappings().first()
            if row is None:
                raise UserError(f"the store has no annotator {annotator!r}; add them first")
            changed = replace(read_annotator(row), **changes)
            new = annotator_row(changed)
            count_again(connection, annotator, new["kind"])
            connection.execute(update(annotators).where(one).values(new))
            if changed.kind != row["kind"]:
                connection.execute(update(leases).where(leases.c.annotator == annotator).values(closed=True))
        return replace(changed, domains=tuple(changed.domains))

    def want(self, task_id: str, wanted: int) -> None:
        """Ask for more answers to a task: at least `wanted` in all.

        Raises:
            UserError: The task is unknown, or `wanted` is no whole number.
        """
        self.want_each({task_id: wanted})

    def want_each(self, wanted: Mapping[str, int]) -> None:
        """Ask for more answers to several tasks, as `want`, in one transaction."""
        for number in wanted.values():
            check_wanted(number)
        with writing(self.engine) as connection:
            for id, number in wanted.items():
                if _find(connection, tasks, id)["wanted"] < number:
                    connection.execute(update(tasks).where(tasks.c.id == id).values(wanted=number))

    def mark_open(self, task_ids: Iterable[str]) -> None:
        """Say which tasks are open: these, and no others, are given to adjudicators. Collecting says so by itself.

        Args:
            task_ids: Ids.

        Raises:
            UserError: A task is unknown.
        """
        ids = set(task_ids)
        with writing(self.engine) as connection:
            numbers = {id: _find(connection, tasks, id)["number"] for id in ids}
            keep(connection, OPEN, sorted(ids, key=numbers.__getitem__))

    @property
    def gold_share(self) -> float:
        """Share of gold questions among what an annotator gets, as the collection has it; .1 without one."""
        with reading(self.engine) as connection:
            return _gold_share(connection)

    @gold_share.setter
    def gold_share(self, share: float) -> None:
        check_share("gold_share", share, optional=False)
        with writing(self.engine) as connection:
            if kept(connection, GOLD_SHARE) != share:
                keep(connection, GOLD_SHARE, share)

    # Giving out and answering

    def lease(self, annotator: str, *, seconds: float = LEASE_SECONDS, gold_share: float | None = None) -> Lease | None:
        """Give an annotator a task: the one they hold, else the next one; an adjudicator an open task.

        Args:
            annotator: Name; added as a person if unknown.
            seconds: Time until the task may go to somebody else.
            gold_share: Share of gold questions, while there are any that they haven't answered. Default: the store's.

        Returns:
            The lease, or None if nothing is left for them.
        """
        now = self.clock()
        row = annotator_row(Annotator(annotator))
        check_number("seconds", seconds, above=0)
        check_share("gold_share", gold_share)
        with writing(self.engine) as connection:
            who = know(connection, row, now)
            held = held_lease(connection, annotator, now)
            if held is not None:
                return held
            share = _gold_share(connection) if gold_share is None else gold_share
            task = next_task(connection, who, now, gold_share=share, salt=self._salt)
            return None if task is None else give(connection, task, annotator, now, seconds, salt=self._salt)

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

        A repeated `id`, or a second answer to the same showing, adds nothing and returns the first, even if that was
        undone since. An answer after the lease's end counts.

        Args:
            lease_id: The lease.
            preference: 1 for the first response, 0 for the second, .5 for a tie; None: skipped.
            id: Made by the client, one per answer.
            confidence: From 0 to 1.
            reason: Text.
            details: Anything else to keep.

        Raises:
            UserError: The lease is unknown, a value is out of range, or the id is that of another lease's answer.
        """
        values = _checked(id, preference, confidence, reason, details) | {"answered_at": self.clock()}
        with writing(self.engine) as connection:
            lease = _find(connection, leases, lease_id)
            done = find_event(connection, id, lease_id=lease_id, undo=False)
            if done is not None:
                return done
            task_id, annotator = lease["task_id"], lease["annotator"]
            # An index leads to the task's answers, of which there are few.
            same = (answers.c.task_id == task_id, answers.c.lease_id == lease_id, answers.c.kind != "undo")
            row = connection.execute(select(answers).where(*same)).mappings().first()
            if row is not None:
                return read_answer(row)
            values |= {"left": lease["left"], "shown_at": lease["leased_at"], "lease_id": lease_id}
            return add_answer(connection, id, task_id, annotator, values)

    def undo(self, annotator: str, *, id: str, seconds: float = LEASE_SECONDS) -> Lease | None:
        """Take an annotator's newest standing answer or skip back and give them its task again.

        Args:
            annotator: Name.
            id: Made by the client, one per undo; a repeated one adds nothing.
            seconds: As in `lease`.

        Returns:
            The new lease; None if there is nothing to undo. For a repeated id, what they hold now.
        """
        now = self.clock()
        check_id("id", id)
        check_number("seconds", seconds, above=0)
        with writing(self.engine) as connection:
            if find_event(connection, id, annotator=annotator, undo=True) is not None:
                return held_lease(connection, annotator, now)
            last = last_standing(connection, annotator)
            if last is None:
                return None
            add_undo(connection, id, last, now)
            # What they held goes back into the queue: the undone task is the one that they hold.
            theirs = (leases.c.annotator == annotator, leases.c.closed.is_(False))
            connection.execute(update(leases).where(*theirs).values(closed=True))
            task = _find(connection, tasks, last["task_id"])
            return give(connection, task, annotator, now, seconds, salt=self._salt)

    def find_lease(self, lease_id: str) -> Lease | None:
        """The lease of an id, open or closed; None if there is none."""
        with reading(self.engine) as connection:
            row = connection.execute(select(leases).where(leases.c.id == lease_id)).mappings().first()
            return None if row is None else lease_of(connection, row)

    def release(self, lease_id: str) -> None:
        """Give a leased task back; once it is answered, nothing happens.

        Raises:
            UserError: The lease is unknown.
        """
        with writing(self.engine) as connection:
            _find(connection, leases, lease_id)
            connection.execute(update(leases).where(leases.c.id == lease_id).values(closed=True))

    def record(
        self,
        task_id: str,
        annotator: str,
        preference: float | None,
        *,
        id: str,
        confidence: float | None = None,
        reason: str | None = None,
        shown_at: float | None = None,
        left: Position | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Add the answer of somebody who was shown nothing by this store: a model, or an import.

        A repeated `id`, or a second answer of the annotator to the task, adds nothing and returns the first.

        Args:
            task_id: The task.
            annotator: Name; added as a model if unknown.
            preference: As in `answer`.
            id: As in `answer`.
            confidence: As in `answer`.
            reason: As in `answer`.
            shown_at: When they saw the task, in seconds since 1970.
            left: Response that they saw on the left.
            details: As in `answer`.

        Raises:
            UserError: The task is unknown, a value is out of range, or the id is that of another task's answer.
        """
        now = self.clock()
        row = annotator_row(Annotator(annotator, "model"))
        if left is not None and left not in get_args(Position):
            raise UserError(f"left is {left!r}; give 'first', 'second' or None")
        values = _checked(id, preference, confidence, reason, details) | {"answered_at": now, "lease_id": None}
        values |= {"left": left, "shown_at": None if shown_at is None else check_number("shown_at", shown_at)}
        with writing(self.engine) as connection:
            _find(connection, tasks, task_id)
            know(connection, row, now)
            done = find_event(connection, id, task_id=task_id, annotator=annotator, undo=False)
            return done or add_answer(connection, id, task_id, annotator, values)

    # Reading

    def showing(self, lease: Lease) -> Showing:
        """Prompt and responses of a leased task, on the sides on which they are shown."""
        task = lease.task
        with reading(self.engine) as connection:
            prompt = read_prompt(_find(connection, prompts, task.prompt_id))
            first, second = (read_response(_find(connection, responses, id)) for id in (task.first_id, task.second_id))
        return Showing(lease, prompt, *((first, second) if lease.left == "first" else (second, first)))

    def progress(self, annotator: str) -> Progress:
        """How much an annotator has answered and skipped, and how much is left for them; an unknown name has all left.

        Example:
            >>> from hf_align.feedback import PreferenceStore
            >>> PreferenceStore("sqlite://").progress("anna")
            Progress(answered=0, skipped=0, left=0)
        """
        with reading(self.engine) as connection:
            who = connection.execute(select(annotators).where(annotators.c.name == annotator)).mappings().first()
            return count_progress(connection, annotator, who, self.clock())

    def prompts(self) -> dict[str, Prompt]:
        """Prompts by id, in the order of adding."""
        return {row["id"]: read_prompt(row) for row in self._rows(prompts)}

    def responses(self) -> dict[str, Response]:
        """Responses by id, in the order of adding."""
        return {row["id"]: read_response(row) for row in self._rows(responses)}

    def tasks(self) -> dict[str, Task]:
        """Tasks by id, in the order of adding."""
        return {row["id"]: read_task(row) for row in self._rows(tasks)}

    def annotators(self) -> dict[str, Annotator]:
        """Annotators by name."""
        return {annotator.name: annotator for annotator in map(read_annotator, self._rows(annotators))}

    def events(self) -> Iterator[Answer]:
        """All answers, skips and undos up to now in the order of adding, read a page at a time."""
        return read_events(self.engine)

    def answers(self) -> Iterator[Answer]:
        """The answers that stand now, in the order of adding, read a page at a time: no skips, nothing undone."""
        return read_events(self.engine, answers_only=True)

    def mark(self) -> tuple[Any, ...]:
        """Differs once a task, answer or annotator was added or changed; cheap, to see whether there is anything new.

        Example:
            >>> from hf_align.feedback import Annotator, PreferenceStore
            >>> store = PreferenceStore("sqlite://")
            >>> before = store.mark()
            >>> store.add(annotators=[Annotator("anna")])
            >>> store.mark() == before
            False
        """
        with reading(self.engine) as connection:
            newest = connection.scalar(select(func.max(answers.c.number)))
            of_tasks = connection.execute(select(func.max(tasks.c.number), func.sum(tasks.c.wanted))).one()
            return newest, *of_tasks, *map(read_annotator, connection.execute(select(annotators)).mappings())

    def statistics(self) -> dict[str, Any]:
        """Figures of the store, as JSON has them, under the names that the figures of an export have.

        Returns:
            Totals: "prompts", "tasks", of them "gold", "open" and "answered", "answers", "skips", "undos",
            "annotators", "people", "models", "agreement" (Krippendorff's alpha at level interval with its ends "low"
            and "high", "raw", the share of equal answers, and the "reason" where alpha is undefined; without gold
            questions), the shares "left" (of decided answers that were shown), "first_on_left", "tied_answers" and
            "reasons", "seconds" and "confidence". Lists of dicts: "by_pool", "by_domain", "by_strategy",
            "by_annotator" (also "gold_right"), "by_group", and "by_task" ("open", "raw_agreement": share of equal pairs
            of answers). What is undefined is None.

        Example:
            >>> from hf_align.feedback import PreferenceStore
            >>> figures = PreferenceStore("sqlite://").statistics()
            >>> figures["answers"], figures["agreement"]["reason"]
            (0, 'there are no values')
        """
        with no_collector():
            return describe_store(self.prompts(), self.tasks(), self.annotators(), self.events())

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

    def _rows(self, table: Table) -> Iterator[RowMapping]:
        order = (table.c.number,) if "number" in table.c else (table.c.added_at, table.c.name)
        with reading(self.engine) as connection:
            return iter(connection.execute(select(table).order_by(*order)).mappings().all())


def _checked(
    id: str, preference: float | None, confidence: float | None, reason: str | None, details: Mapping[str, Any] | None
) -> dict[str, Any]:
    check_id("id", id)
    return {
        "preference": check_share("preference", preference),
        "confidence": check_share("confidence", confidence),
        "reason": check_text("reason", reason),
        "details": check_json("details", dict(details or {})),
    }


def _gold_share(connection: Connection) -> float:
    share = kept(connection, GOLD_SHARE)
    return DEFAULT_GOLD_SHARE if share is None else share


def _find(connection: Connection, table: Table, id: str) -> RowMapping:
    row = connection.execute(select(table).where(table.c.id == id)).mappings().first()
    if row is None:
        raise UserError(f"the store has no {table.name.removesuffix('s')} {id!r}")
    return row
