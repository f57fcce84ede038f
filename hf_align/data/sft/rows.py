"""Demonstrations on their way from any known layout to the rows that training reads."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Features, Value, concatenate_datasets

from hf_align.collators.checks import as_dataset, group_rows, refuse
from hf_align.collators.demonstrations import FORMATS
from hf_align.collators.rows import RowProblem
from hf_align.collators.tools import template_options, to_dataset
from hf_align.data.sft.layouts import Demonstration, Layout, columns_for
from hf_align.data.sft.recognition import recognise_demonstrations, warn_of_ratings
from hf_align.data.sft.report import Dropped, Place, SFTReport, shown
from hf_align.errors import UserError

logger = logging.getLogger(__name__)

SOURCE, SCORE = "source", "quality_score"
BATCH = 1000
FORMS = ("messages", "prompt", "completion", "text")


@dataclass
class Row:
    """A row on its way.

    Attributes:
        place: Where it stood.
        columns: Its other columns.
        read: What is shown to the model.
        tools: For its chat template, as JSON; None without.
        changes: What cleaning changed.
        score: Its quality.
    """

    place: Place
    columns: dict[str, Any]
    read: Demonstration
    tools: str | None = None
    changes: tuple[str, ...] = ()
    score: float = 1.0

    @property
    def source(self) -> str:
        """Its own source, or the name of its data set."""
        own = self.columns.get(SOURCE)
        return own if isinstance(own, str) and own.strip() else self.place.dataset


def standard_rows(dataset: Any, name: str) -> Dataset:
    """Rows of any known layout as training reads them, all of them and unchanged otherwise.

    Args:
        dataset: As for `prepare_sft`.
        name: The argument's name, for messages.

    Raises:
        UserError: The layout is unknown, or a row can't be read; the message gives counts and row numbers.
    """
    data = as_dataset(dataset, name, ()).with_format(None)
    known = recognise_demonstrations(data, name)
    if known.layout.columns not in FORMATS:
        logger.warning("%s: recognised %s; rows: %s", name, known.layout.name, f"{len(known.rows):,}")
    if SCORE not in data.column_names:  # prepared rows: whoever prepared them was warned
        warn_of_ratings(data, name)
    rows, problems = [], []
    for place, row in numbered(known.rows, name):
        read = read_row(place, row, known.layout)
        problems.append(read if isinstance(read, str) else "")
        rows.append(read)
    unusable = {problem: list(numbers) for problem, numbers in known.unusable.items()}
    refuse({**unusable, **group_rows(problems)}, name, "fix or drop them")
    return standard_dataset(rows, {name: known.rows})


def read_sets(sets: Mapping[str, Dataset], done: SFTReport) -> list[Row]:
    """The rows of several data sets; the report gets those that can't be read.

    Raises:
        UserError: A layout is unknown, or plain text stands beside conversations.
    """
    rows: list[Row] = []
    forms: dict[str, str] = {}
    for name, data in sets.items():
        known = recognise_demonstrations(data, name)
        unusable = {number: problem for problem, numbers in known.unusable.items() for number in numbers}
        done.dropped += [Dropped(Place(name, n), "unreadable", problem, "") for n, problem in unusable.items()]
        done.layouts[name], done.rows[name] = known.layout.name, len(known.rows) + len(unusable)
        for place, row in numbered(known.rows, name):
            read = read_row(place, row, known.layout)
            if isinstance(read, str):
                text = " ".join(str(row[column]) for column in known.layout.columns if row.get(column) is not None)
                done.dropped.append(Dropped(place, "unreadable", read, shown(text)))
            else:
                rows.append(read)
                forms.setdefault("text" if read.read.form == "text" else "conversation", name)
    if len(forms) > 1:
        raise UserError(
            f"{forms['text']} has plain text and {forms['conversation']} has prompts with completions, which aren't "
            "trained on together: make two data sets of them, or name the columns of the text prompt and completion."
        )
    return rows


def numbered(data: Dataset, name: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows with their places."""
    for start in range(0, len(data), BATCH):  # by columns: several times faster than row by row
        batch = data[start : start + BATCH]
        for number, values in enumerate(zip(*batch.values(), strict=True), start):
            yield Place(name, number), dict(zip(batch, values, strict=True))


def read_row(place: Place, row: dict[str, Any], layout: Layout) -> Row | str:
    """The row, or what is wrong with it."""
    try:
        read = layout.read(row)
        tools = None
        if row.get("tools") and read.form == "conversation":
            tools = json.dumps(template_options({"tools": row["tools"]})["tools"] or [], ensure_ascii=False)
    except RowProblem as problem:
        return str(problem)
    others = {column: value for column, value in row.items() if column not in (*layout.columns, "tools")}
    return Row(place, others, read, tools, read.changes)


def standard_dataset(rows: Sequence[Row], sets: Mapping[str, Dataset]) -> Dataset:
    """The rows with their source, quality and other columns."""
    standard = columns_for([row.read for row in rows])
    if any(row.tools is not None for row in rows):
        standard = [{**each, "tools": row.tools} for each, row in zip(standard, rows, strict=True)]
    types: dict[str, Any] = {}
    clashes: set[str] = set()
    for data in sets.values():
        for column, kind in data.features.items():
            if types.setdefault(column, kind) != kind:
                clashes.add(column)
    if clashes:
        logger.warning("columns of different types are left out: %s.", ", ".join(sorted(clashes)))
    taken = {*FORMS, "tools", SOURCE, SCORE}
    read = {column for row in rows[:1] for column in row.columns}.union(*(row.columns for row in rows))
    others = {column: kind for column, kind in types.items() if column in read - taken - clashes}
    added = [
        {**{column: row.columns.get(column) for column in others}, SOURCE: row.source, SCORE: row.score} for row in rows
    ]
    features = Features({**others, SOURCE: Value("string"), SCORE: Value("float64")})
    return concatenate_datasets([to_dataset(standard), Dataset.from_list(added, features=features)], axis=1)
