"""Rows of a stream, read some at a time: checked and tokenised as a whole data set's rows are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_align.collators.checks import FIX, Kinds, group_rows, read_or_problems, refuse
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.judged import columns_read, kind_of, made_columns
from hf_align.collators.labels import Tasks
from hf_align.collators.tokenize import CUT_FIX, IDS, KEPT, tokenize_rows
from hf_align.collators.truncation import Limits

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class BlockReader:
    """Reads blocks of rows whose first ones went through `check_preferences` and `tokenize_preferences`.

    Args:
        columns: Columns of those first rows. Later rows have None where they lack one; another column that would be
            read is refused.
        encoder: Renders and tokenises.
        limits: Maximum lengths.
        name: The data set's name, for messages.
        tasks: Auxiliary tasks whose labels to read.
        plain: Whether only plain pairs are read, as for policies.
        problem_of: Says what else is wrong with a tokenised row, worded to follow "1 row has"; "" for nothing.

    Example:
        >>> from hf_align.collators.blocks import BlockReader
        >>> from hf_align.collators.encoding import PairEncoder
        >>> from hf_align.collators.truncation import Limits
        >>> from transformers import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> reader = BlockReader(("prompt", "chosen", "rejected"), PairEncoder(tokenizer), Limits(64, None, "keep_end"))
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> sorted(reader.tokenize(reader.check(rows, 0), [0])[0])
        ['prompt_ids', 'response_ids']
    """

    columns: tuple[str, ...]
    encoder: PairEncoder
    limits: Limits
    name: str = "train_dataset"
    tasks: Tasks = field(default_factory=dict)
    plain: bool = False
    problem_of: Callable[[Mapping[str, Any]], str] = lambda row: ""

    def check(self, rows: Sequence[Any], first: int) -> Rows:
        """Refuse rows that can't be trained on, in the words of `check_preferences`.

        Args:
            rows: Rows as they came.
            first: Number of the first one, for messages.

        Returns:
            The rows, each with the columns of the first rows of all.

        Raises:
            UserError: Some can't be used: one line with each problem, its count and its row numbers.
        """
        kinds: Kinds = {}
        for number, row in enumerate(rows, first):
            for problem in self._problems(row):
                kinds.setdefault(problem, []).append(number)
        refuse(kinds, self.name, FIX)
        return [{column: row.get(column) for column in self.columns} for row in rows]

    def tokenize(self, rows: Rows, numbers: Sequence[int]) -> Rows:
        """Tokenise checked rows.

        Args:
            rows: From `check`.
            numbers: The rows' numbers, for messages.

        Returns:
            Rows as those of the data set that `tokenize_preferences` returns.

        Raises:
            UserError: A response can't be told from another once it is cut, or the tokenizer can't write a row.
        """
        made = (*IDS, *made_columns(self.columns, self.tasks, plain=self.plain))
        kept = [column for column in KEPT if column in self.columns]
        results = tokenize_rows(rows, self.encoder, self.limits, self.tasks, plain=self.plain)
        refuse(_numbered((result["problem"] for result in results), numbers), self.name, CUT_FIX)
        tokenized = [
            {column: result.get(column) for column in made} | {column: row[column] for column in kept}
            for row, result in zip(rows, results, strict=True)
        ]
        refuse(_numbered(map(self.problem_of, tokenized), numbers), self.name, "fix or drop them")
        return tokenized

    def _problems(self, row: Any) -> list[str]:
        if not isinstance(row, Mapping):
            return [f"another type than dict ({type(row).__name__})"]
        read = columns_read(kind_of(self.columns), self.tasks, plain=self.plain)
        new = [name for name in read if name not in self.columns and row.get(name) is not None]
        values = {column: row.get(column) for column in self.columns}
        _, problems = read_or_problems(values, self.tasks, plain=self.plain)
        return [*(f"a {name}, which the stream's first rows don't have" for name in new), *problems]


def _numbered(problems: Iterable[str], numbers: Sequence[int]) -> Kinds:
    """Numbers of rows by problem."""
    kinds = group_rows(problems)
    return {kind: [numbers[place] for place in places] for kind, places in kinds.items()}
