"""Pairs as comparisons of responses: which rows are about the same ones, and new rows of two of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.judged import kind_of, read_judged
from hf_align.collators.labels import SOFT
from hf_align.collators.rows import Pair, RowProblem, text_of
from hf_align.collators.tools import NESTED
from hf_align.errors import UserError
from hf_align.numbers import number_problem

SIDES = ("chosen", "rejected")
NUMBERS = ("margin", "weight")


@dataclass(frozen=True)
class Compared:
    """What a row says about two responses.

    Attributes:
        better, worse: Their numbers; of equally good ones in the row's order.
        label: P(better is better), from .5.
        row: The row's number.
    """

    better: int
    worse: int
    label: float
    row: int


@dataclass(frozen=True)
class Pairs:
    """Rows, and the responses in them, each once for its prompt.

    Attributes:
        name: The argument's name, for messages.
        data: As given.
        rows: The same as dicts.
        read: As `read_pair` gives them.
        labels: P(chosen better) of each row.
        soft: Whether the rows have labels.
        places: For each response a row and the side on which it stands there.
        prompts: For each response the number of its prompt.
        compared: For each row.
    """

    name: str
    data: Dataset
    rows: list[dict[str, Any]]
    read: list[Pair]
    labels: list[float]
    soft: bool
    places: list[tuple[int, str]]
    prompts: list[int]
    compared: list[Compared]

    def made(self, better: int, worse: int, origin: Sequence[int]) -> dict[str, Any]:
        """A row of two responses, without label, margin and weight; other values are those that its rows share."""
        rows = [self.rows[number] for number in origin]
        row: dict[str, Any] = {}
        for column in self.data.column_names:
            same = all(each[column] == rows[0][column] for each in rows)
            row[column] = rows[0][column] if same and column not in (*NUMBERS, *SOFT) else None
        row["prompt"] = self.rows[self.places[better][0]]["prompt"]
        for side, response in zip(SIDES, (better, worse), strict=True):
            number, place = self.places[response]
            row[side] = self.rows[number][place]
            for column in self.data.column_names:
                kind, _, rest = column.partition("_")
                if kind == side and f"{place}_{rest}" in self.data.column_names:
                    row[column] = self.rows[number][f"{place}_{rest}"]
        smallest = {each: min(row[each] for row in rows) for each in NUMBERS if each in self.data.column_names}
        return {**row, **smallest, "origin": list(origin)}

    def text(self, response: int) -> str:
        """A response's text."""
        number, side = self.places[response]
        return text_of(getattr(self.read[number], side))


def read_compared(dataset: Any, name: str) -> Pairs:
    """Read pairs, and find which of them are about the same responses.

    Args:
        dataset: Rows of `prompt`, `chosen` and `rejected`.
        name: The argument's name, for messages.

    Raises:
        UserError: The rows are rankings or have a column `origin`, or a row can't be used.
    """
    columns = dataset[0] if isinstance(dataset, list) and dataset else getattr(dataset, "column_names", ())
    if kind_of(columns) == "rankings":
        raise UserError(f"{name} has rankings, of which all responses are compared already; augment takes pairs.")
    data = as_dataset(dataset, name, ("prompt", *SIDES)).with_format(None)
    if "origin" in data.column_names:
        raise UserError(
            f"{name} has a column origin, which augment adds; ask for all kinds in one call, or rename the column."
        )
    rows = [dict(row) for row in data]
    read = read_rows(rows, _read_row, name)
    numbers: dict[str, int] = {}
    prompts: dict[str, int] = {}
    places: list[tuple[int, str]] = []
    of_prompt: list[int] = []
    compared = []
    for row, (pair, label) in enumerate(read):
        prompt = json.dumps([pair.prompt, *(rows[row].get(each) for each in NESTED)], sort_keys=True, default=str)
        ids = []
        for side, response in zip(SIDES, pair.responses, strict=True):
            key = json.dumps([prompt, response], sort_keys=True, default=str)
            if key not in numbers:
                numbers[key] = len(places)
                places.append((row, side))
                of_prompt.append(prompts.setdefault(prompt, len(prompts)))
            ids.append(numbers[key])
        better, worse = ids if label >= 0.5 else reversed(ids)
        compared.append(Compared(better, worse, max(label, 1 - label), row))
    soft = any(column in data.column_names for column in SOFT)
    pairs, labels = [pair for pair, _ in read], [label for _, label in read]
    return Pairs(name, data, rows, pairs, labels, soft, places, of_prompt, compared)


def _read_row(row: dict[str, Any]) -> tuple[Pair, float]:
    pair, values = read_judged(row, {})
    assert isinstance(pair, Pair)
    for field in NUMBERS:
        if field in row and (row[field] is None or number_problem(row[field]) or row[field] < 0):
            raise RowProblem(f"a {field} that is no number from 0")
    return pair, 1.0 if values["label"] is None else values["label"]
