"""Rows as the checks of an inspection see them: read once, passed on in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from datasets import Dataset

from hf_align.collators.judged import read_judged
from hf_align.collators.rankings import Ranking
from hf_align.collators.rows import Pair, RowProblem, Side, text_of
from hf_align.data.inspection.findings import Found

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """A row.

    Attributes:
        number: Its number in the data set, from 0.
        row: Its columns as they are.
        read: Prompt and responses; None if the row can't be read.
        problem: Why it can't be, worded to follow "3 rows have"; None otherwise.
        values: What `read_judged` made of label, votes, scores and ratings.
        prompt: Text of the prompt, without roles; "" where it is implicit or can't be read.
        responses: Text of each response; of a pair, chosen first. Empty if the row can't be read.
    """

    number: int
    row: Mapping[str, Any]
    read: Pair | Ranking | None
    problem: RowProblem | None
    values: Mapping[str, Any]
    prompt: str
    responses: tuple[str, ...]


class Check(Protocol):
    """A part of an inspection: sees all rows once, in order, then says what it found."""

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows. What is kept of each must be small: hashes and numbers, no texts."""
        ...

    def finish(self) -> Found:
        """Figures and findings."""
        ...


@dataclass(frozen=True)
class Context:
    """What checks may use besides the rows.

    Attributes:
        columns: The data set's columns.
        rows: Number of rows.
        fetch: Records by their numbers, read again.
        tokenizer: The one to train with, if given.
        max_length: Tokens of prompt and response together, None for no limit.
        max_prompt_length: Tokens of the prompt, None for no limit.
        eval_dataset: The evaluation set, of the layout of the data set, if given.
        seed: Of bootstraps and samples.
        min_agreement: Least share of agreeing pairs of people in a row.
        min_margin: Least margin of a row.
    """

    columns: Sequence[str]
    rows: int
    fetch: Callable[[Sequence[int]], list[Record]]
    tokenizer: PreTrainedTokenizerBase | None = None
    max_length: int | None = None
    max_prompt_length: int | None = None
    eval_dataset: Dataset | None = None
    seed: int = 0
    min_agreement: float = 0.7
    min_margin: float = 0.2


def record_of(number: int, row: Mapping[str, Any]) -> Record:
    """Read a row."""
    try:
        read, values = read_judged(row, {})
    except RowProblem as problem:
        return Record(number, row, None, problem, {}, "", ())
    prompt: Side = read.prompt or ""
    return Record(number, row, read, None, values, text_of(prompt), tuple(map(text_of, read.responses)))


def records_of(rows: Dataset, start: int = 0) -> Iterator[list[Record]]:
    """All rows in batches, in order."""
    for first in range(start, len(rows), BATCH):  # by columns: several times faster than row by row
        batch: Any = rows[first : first + BATCH]
        names = list(batch)
        yield [
            record_of(first + n, dict(zip(names, values, strict=True)))
            for n, values in enumerate(zip(*batch.values(), strict=True))
        ]
