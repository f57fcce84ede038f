"""Conversion of any known layout of preference data to pairs or rankings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

from datasets import Dataset

from hf_align.collators.judged import Kind
from hf_align.collators.rankings import read_ranking
from hf_align.collators.rows import RowProblem
from hf_align.collators.tools import to_dataset
from hf_align.data.layouts.layout import Layout, Made, Row, Tally, Ties, Unusable
from hf_align.data.layouts.registry import find_layout, recognise
from hf_align.errors import UserError
from hf_align.numbers import number_problem

logger = logging.getLogger(__name__)
_SHOWN = 5  # row numbers in a line
_GAP_DIGITS = 9


@dataclass(frozen=True)
class Conversion:
    """Converted rows, and what was recognised and left out.

    Attributes:
        rows: The pairs or rankings.
        layout: What was recognised.
        kind: What `rows` are.
        read: Number of rows converted.
        dropped: Number of comparisons left out, by reason.
        unusable: Numbers of the rows left out, by what they have.
    """

    rows: Dataset
    layout: Layout
    kind: Kind
    read: int
    dropped: Mapping[str, int]
    unusable: Mapping[str, Sequence[int]]

    def __str__(self) -> str:
        counts = f"rows: {self.read:,}, {self.kind}: {len(self.rows):,}"
        left_out = _left_out(self.dropped, self.unusable) or "nothing"
        return f"recognised {self.layout.name} ({self.layout.source}); {counts}; left out: {left_out}"

    def figures(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {
            "layout": self.layout.name,
            "source": self.layout.source,
            "kind": self.kind,
            "rows_in": self.read,
            "rows_out": len(self.rows),
            "columns": self.rows.column_names,
            "dropped": dict(self.dropped),
            "unusable": {problem: list(numbers) for problem, numbers in self.unusable.items()},
        }


def to_preferences(
    dataset: Dataset | Iterable[Row],
    *,
    ties: Ties = "drop",
    min_gap: float = 0.5,
    as_pairs: bool = False,
    layout: str | None = None,
) -> Dataset:
    """Preference data of any known layout as the pairs or rankings that trainers take.

    Logs one line: the layout recognised, rows read and made, and what was left out, by reason. Columns that a layout
    has besides are kept; those whose names trainers would read in another sense get the prefix `source_`.

    Args:
        dataset: The rows.
        ties: "drop" comparisons without a better response, or "keep" both orders, each with weight 0.5.
        min_gap: Rated responses become a pair if their ratings are further apart than this.
        as_pairs: Make pairs of rankings, too, for trainers of pairs.
        layout: Name of the layout. Default: the one recognised by the columns and the first rows.

    Returns:
        Rows with prompt, chosen and rejected, or with prompt, responses, and ranking, scores or ratings.

    Raises:
        UserError: The layout isn't known, or no row could be converted.

    Example:
        >>> from hf_align.data import to_preferences
        >>> rows = [{"question": "Is the sky blue?", "response_j": "By day.", "response_k": "No."}]
        >>> to_preferences(rows)[0]
        {'prompt': 'Is the sky blue?', 'chosen': 'By day.', 'rejected': 'No.'}
    """
    conversion = convert_rows(dataset, ties=ties, min_gap=min_gap, as_pairs=as_pairs, layout=layout)
    level = logging.WARNING if conversion.unusable else logging.INFO
    logger.log(level, "%s", conversion)
    return conversion.rows


def convert_rows(
    dataset: Dataset | Iterable[Row],
    *,
    ties: Ties = "drop",
    min_gap: float = 0.5,
    as_pairs: bool = False,
    layout: str | None = None,
) -> Conversion:
    """As `to_preferences`, with what was recognised and left out beside the rows, and nothing logged."""
    if ties not in ("drop", "keep"):
        raise UserError(f'ties must be "drop" or "keep", not {ties!r}')
    if number_problem(min_gap) or min_gap < 0:
        raise UserError(f"min_gap must be a number of rating points >= 0, not {min_gap!r}")
    rows = _rows(dataset)
    known = recognise(rows) if layout is None else find_layout(layout, rows)
    tally = Tally(ties, float(min_gap))
    unfolds = as_pairs and known.makes == "rankings"
    kind: Kind = "pairs" if unfolds else known.makes
    if known.convert is None and known.whole is None and not unfolds:
        return Conversion(rows, known, kind, len(rows), {}, {})
    made = _made(known, rows, tally)
    result = list(_unfolded(made, tally) if unfolds else made)
    if not result:
        raise UserError(
            f"recognised {known.name}, but none of the {len(rows):,} rows can be used; left out: "
            f"{_left_out(tally.dropped, tally.unusable)}; check the columns, or name another layout"
        )
    return Conversion(_to_dataset(result), known, kind, len(rows), tally.dropped, tally.unusable)


def _left_out(dropped: Mapping[str, int], unusable: Mapping[str, Sequence[int]]) -> str:
    parts = [f"{reason} ({count:,})" for reason, count in dropped.items()]
    for problem, numbers in unusable.items():
        shown = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
        parts.append(f"rows with {problem} ({len(numbers):,}: row {shown})")
    return ", ".join(parts)


def _rows(dataset: Any) -> Dataset:
    if isinstance(dataset, Mapping):
        raise UserError(f"pass one split, not the whole dict of {', '.join(map(str, dataset))}")
    if not isinstance(dataset, Dataset):
        if isinstance(dataset, str) or not isinstance(dataset, Iterable):
            raise UserError(f"dataset must be a Dataset or a list of rows, not {type(dataset).__name__}")
        rows = list(dataset)
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise UserError(f"row {number} is {type(row).__name__}, not a mapping from column names to values")
        dataset = _to_dataset(rows) if rows else Dataset.from_dict({})
    if not len(dataset):
        raise UserError("the data set has no rows")
    return dataset.with_format(None)


def _made(layout: Layout, rows: Dataset, tally: Tally) -> Iterator[Made]:
    numbered = enumerate(cast(Iterable[Row], rows))
    if layout.whole is not None:
        yield from layout.whole(numbered, tally)
        return
    for number, row in numbered:
        try:
            yield from [dict(row)] if layout.convert is None else layout.convert(row, tally)
        except (Unusable, RowProblem) as problem:
            tally.refuse(number, str(problem))


def _unfolded(rankings: Iterable[Made], tally: Tally) -> Iterator[Made]:
    """All pairs of each ranking, those of scores or ratings that are further apart than `min_gap`, with the gap."""
    for number, row in enumerate(rankings):
        try:
            ranking = read_ranking(row)
        except RowProblem as problem:
            tally.refuse(number, str(problem))
            continue
        others = {name: value for name, value in row.items() if name not in _OF_RANKING}
        scores, ratings = ranking.scores, ranking.ratings
        for a, b in combinations(range(len(ranking.responses)), 2):
            margin = None if scores is None else round(abs(scores[a] - scores[b]), _GAP_DIGITS)
            if ranking.ranks[a] == ranking.ranks[b] == -1:
                tally.drop("pairs of responses below all ranked")
                continue
            if margin is not None and margin <= tally.min_gap:
                tally.drop(f"pairs with a gap of at most {tally.min_gap:g}")
                continue
            each = {} if ratings is None else {"ratings": (ratings[a], ratings[b])}
            ranks = [rank if rank >= 0 else len(ranking.ranks) for rank in (ranking.ranks[a], ranking.ranks[b])]
            preference = 0.5 * (1 + (ranks[0] < ranks[1]) - (ranks[0] > ranks[1]))
            sides = ranking.responses[a], ranking.responses[b]
            yield from tally.compare(ranking.prompt, *sides, preference, others, margin=margin, each=each)


_OF_RANKING = ("prompt", "responses", "ranking", "scores", "ratings")


def _to_dataset(rows: Sequence[Row]) -> Dataset:
    try:
        return to_dataset(rows)
    except (TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"a column has values of several types, which a data set can't hold: {reason}") from None
