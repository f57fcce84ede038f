"""What a store holds, as it can be read: records, events and figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from datasets import Dataset
from sqlalchemy import RowMapping, Table, func, select

from hf_align.data.parts import digest
from hf_align.errors import UserError
from hf_align.feedback.export.made import export_preferences
from hf_align.feedback.records import Annotator, Answer, Lease, Progress, Prompt, Response, Showing, Task
from hf_align.feedback.store.connection import open_engine, reading
from hf_align.feedback.store.describe import describe_store, no_collector
from hf_align.feedback.store.events import read_events
from hf_align.feedback.store.migrations import prepare
from hf_align.feedback.store.queue import count_progress, lease_of
from hf_align.feedback.store.rows import find_row, read_annotator, read_prompt, read_response, read_task
from hf_align.feedback.store.schema import annotators, answers, leases, prompts, responses, tasks


class StoreContents:
    """The reading half of a `PreferenceStore`: nothing here changes the database, once it is made.

    Args:
        url: Database URL.
        clock: Seconds since 1970.
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

    def find_lease(self, lease_id: str) -> Lease | None:
        """The lease of an id, open or closed; None if there is none."""
        with reading(self.engine) as connection:
            row = connection.execute(select(leases).where(leases.c.id == lease_id)).mappings().first()
            return None if row is None else lease_of(connection, row)

    def showing(self, lease: Lease) -> Showing:
        """Prompt and responses of a leased task, on the sides on which they are shown."""
        task = lease.task
        with reading(self.engine) as connection:
            prompt = read_prompt(find_row(connection, prompts, task.prompt_id))
            first, second = (
                read_response(find_row(connection, responses, id)) for id in (task.first_id, task.second_id)
            )
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
