"""The store itself: what is added, given out and answered; `contents` is what is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from sqlalchemy import select, update

from hf_align.errors import UserError
from hf_align.feedback.records import (
    Annotator,
    Answer,
    Lease,
    Position,
    Prompt,
    Response,
    Task,
)
from hf_align.feedback.store.adding import add_prompts, add_responses, add_tasks, know
from hf_align.feedback.store.checks import (
    check_answer,
    check_id,
    check_number,
    check_share,
    check_wanted,
)
from hf_align.feedback.store.connection import reading, writing
from hf_align.feedback.store.contents import StoreContents
from hf_align.feedback.store.events import add_answer, add_undo, count_again, find_event, last_standing
from hf_align.feedback.store.queue import (
    GOLD_SHARE,
    OPEN,
    give,
    held_lease,
    keep,
    kept,
    kept_gold_share,
    next_task,
)
from hf_align.feedback.store.rows import (
    annotator_row,
    find_row,
    prompt_row,
    read_annotator,
    read_answer,
    response_row,
    task_row,
)
from hf_align.feedback.store.schema import annotators, answers, leases, tasks

LEASE_SECONDS = 1800.0


class PreferenceStore(StoreContents):
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
                if find_row(connection, tasks, id)["wanted"] < number:
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
            numbers = {id: find_row(connection, tasks, id)["number"] for id in ids}
            keep(connection, OPEN, sorted(ids, key=numbers.__getitem__))

    @property
    def gold_share(self) -> float:
        """Share of gold questions among what an annotator gets, as the collection has it; .1 without one."""
        with reading(self.engine) as connection:
            return kept_gold_share(connection)

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
            share = kept_gold_share(connection) if gold_share is None else gold_share
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
        values = check_answer(id, preference, confidence, reason, details) | {"answered_at": self.clock()}
        with writing(self.engine) as connection:
            lease = find_row(connection, leases, lease_id)
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
            task = find_row(connection, tasks, last["task_id"])
            return give(connection, task, annotator, now, seconds, salt=self._salt)

    def release(self, lease_id: str) -> None:
        """Give a leased task back; once it is answered, nothing happens.

        Raises:
            UserError: The lease is unknown.
        """
        with writing(self.engine) as connection:
            find_row(connection, leases, lease_id)
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
        values = check_answer(id, preference, confidence, reason, details) | {"answered_at": now, "lease_id": None}
        values |= {"left": left, "shown_at": None if shown_at is None else check_number("shown_at", shown_at)}
        with writing(self.engine) as connection:
            find_row(connection, tasks, task_id)
            know(connection, row, now)
            done = find_event(connection, id, task_id=task_id, annotator=annotator, undo=False)
            return done or add_answer(connection, id, task_id, annotator, values)
