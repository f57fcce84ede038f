"""Conversion of any known layout of preference data to pairs or rankings."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from datasets import Dataset, Json

from hf_align.collators.judged import Kind
from hf_align.collators.rankings import read_ranking
from hf_align.collators.rows import RowProblem
from hf_align.collators.tools import to_dataset
from hf_align.data.layouts.layout import GAP_DIGITS, UNREADABLE, Layout, Made, Row, Tally, Ties, problem_of
from hf_align.data.layouts.registry import columns_of, find_layout, first_rows, recognise, type_of
from hf_align.errors import UserError
from hf_align.numbers import number_problem
from hf_align.progress import Advance, Progress, Silent

logger = logging.getLogger(__name__)
_SHOWN = 5  # row numbers in a line
_BATCH = 1000
_SURROGATE = re.compile(r"\\ud[89a-f][0-9a-f]{2}")  # as `repr` writes it


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
    progress: Progress | None = None,
) -> Conversion:
    """As `to_preferences`, with what was recognised and left out beside the rows, and nothing logged.

    Args:
        dataset: The rows.
        ties: See `to_preferences`.
        min_gap: See there.
        as_pairs: See there.
        layout: See there.
        progress: Receiver of progress. Default: none.
    """
    if ties not in ("drop", "keep"):
        raise UserError(f'ties must be "drop" or "keep", not {ties!r}')
    if number_problem(min_gap) or min_gap < 0:
        raise UserError(f"min_gap must be a number of rating points >= 0, not {min_gap!r}")
    rows = _rows(dataset)
    columns = columns_of(rows)
    known = recognise(columns, first_rows(rows)) if layout is None else find_layout(layout, columns)
    tally = Tally(ties, float(min_gap))
    unfolds = as_pairs and known.makes == "rankings"
    kind: Kind = "pairs" if unfolds else known.makes
    if known.unchanged and not unfolds:
        _check_types(rows, known)
        return Conversion(rows if isinstance(rows, Dataset) else _to_dataset(rows), known, kind, len(rows), {}, {})
    with (progress or Silent()).task("rows converted", len(rows)) as advance:
        made = _made(known, _numbered(rows, columns, advance), tally)
        result = [row for number, each in made for row in (_unfolded(number, each, tally) if unfolds else [each])]
    if not result:
        raise UserError(
            f"recognised {known.name}, but none of the {len(rows):,} rows can be used; left out: "
            f"{_left_out(tally.dropped, tally.unusable)}; check the columns, or name another layout"
        )
    return Conversion(_to_dataset(result), known, kind, len(rows), tally.dropped, tally.unusable)


def _check_types(rows: Dataset | list[Row], layout: Layout) -> None:
    """Refuse texts beside messages in a column that is returned unchanged."""
    if not isinstance(rows, Dataset):
        return
    for name in layout.columns:
        if isinstance(rows.features.get(name), Json) and (reason := _mixed([{name: value} for value in rows[name]])):
            raise UserError(f"a column of a data set holds values of one type: {reason}")


def _left_out(dropped: Mapping[str, int], unusable: Mapping[str, Sequence[int]]) -> str:
    parts = [f"{reason} ({count:,})" for reason, count in dropped.items()]
    for problem, numbers in unusable.items():
        shown = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
        parts.append(f"rows with {problem} ({len(numbers):,}: row {shown})")
    return ", ".join(parts)


def _rows(dataset: Any) -> Dataset | list[Row]:
    """Rows as they are: a list may hold values of several types, which become one in the conversion."""
    if isinstance(dataset, Mapping):
        raise UserError(f"pass one split, not the whole dict of {', '.join(map(str, dataset))}")
    if isinstance(dataset, str) or not isinstance(dataset, Iterable):
        raise UserError(f"dataset must be a Dataset or a list of rows, not {type(dataset).__name__}")
    rows = dataset.with_format(None) if isinstance(dataset, Dataset) else list(dataset)
    for number, row in enumerate(rows if isinstance(rows, list) else ()):
        if not isinstance(row, Mapping):
            raise UserError(f"row {number} is {type(row).__name__}, not a mapping from column names to values")
    if not len(rows):
        raise UserError("the data set has no rows")
    return rows


def _numbered(rows: Dataset | list[Row], columns: Sequence[str], advance: Advance) -> Iterator[tuple[int, Row]]:
    """Rows with their numbers, and with every column."""
    for start in range(0, len(rows), _BATCH):
        if isinstance(rows, Dataset):  # by columns: several times faster than row by row
            batch: Any = rows[start : start + _BATCH]
            values = zip(*(batch[name] for name in columns), strict=True)
            part: Iterable[Row] = (dict(zip(columns, each, strict=True)) for each in values)
        else:
            part = ({name: row.get(name) for name in columns} for row in rows[start : start + _BATCH])
        yield from enumerate(part, start)
        advance(min(start + _BATCH, len(rows)), "")


def _made(layout: Layout, rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[tuple[int | None, Made]]:
    """What is made, with the number of the row where it is made of one."""
    if layout.whole is not None:
        yield from ((None, made) for made in layout.whole(rows, tally))
        return
    for number, row in rows:
        try:
            converted = [dict(row)] if layout.convert is None else layout.convert(row, tally)
            yield from ((number, made) for made in converted)
        except UNREADABLE as error:
            tally.refuse(number, problem_of(error))


def convert_row(layout: Layout, number: int, row: Row, tally: Tally, *, as_pairs: bool = False) -> Iterator[Made]:
    """Pairs or rankings of one row.

    Args:
        layout: Its layout, one that converts each row by itself.
        number: Its number, for the tally.
        row: The row, with every column.
        tally: Notes what is left out.
        as_pairs: See `to_preferences`.
    """
    for _, made in _made(layout, [(number, row)], tally):
        yield from _unfolded(number, made, tally) if as_pairs and layout.makes == "rankings" else [made]


def _unfolded(number: int | None, row: Made, tally: Tally) -> Iterator[Made]:
    """All pairs of a ranking, those of scores or ratings that are further apart than `min_gap`, with the gap."""
    try:
        ranking = read_ranking(row)
    except RowProblem as problem:
        if number is None:
            tally.drop(f"rankings with {problem}")
        else:
            tally.refuse(number, str(problem))
        return
    tally.drop("responses without a score or rating", ranking.left_out)
    others = {name: value for name, value in row.items() if name not in _OF_RANKING}
    scores, ratings = ranking.scores, ranking.ratings
    for a, b in combinations(range(len(ranking.responses)), 2):
        margin = None if scores is None else round(abs(scores[a] - scores[b]), GAP_DIGITS)
        if ranking.ranks[a] == ranking.ranks[b] == -1:
            tally.drop("pairs of responses below all ranked")
            continue
        if margin is not None and margin <= tally.min_gap:
            tally.drop(f"pairs with a gap of at most {tally.min_gap:g}")
            continue
        each = {} if ratings is None else {"ratings": (ratings[a], ratings[b])}
        first, second = (rank if rank >= 0 else len(ranking.ranks) for rank in (ranking.ranks[a], ranking.ranks[b]))
        preference = 0.5 * (1 + (first < second) - (first > second))
        sides = ranking.responses[a], ranking.responses[b]
        yield from tally.compare(ranking.prompt, *sides, preference, others, margin=margin, each=each)


_OF_RANKING = ("prompt", "responses", "ranking", "scores", "ratings")


def _to_dataset(rows: Sequence[Row]) -> Dataset:
    try:
        return to_dataset(rows)
    except (TypeError, ValueError) as error:
        if isinstance(error, UnicodeEncodeError):
            number = next(number for number, row in enumerate(rows) if _SURROGATE.search(str(row)))
            raise UserError(f"row {number} holds half a character (a lone surrogate); save it as UTF-8") from None
        reason = _mixed(rows) or (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"a column of a data set holds values of one type: {reason}") from None


def _mixed(rows: Sequence[Row]) -> str | None:
    """The first column with values of two types, and rows that have them."""
    first: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            kind = type_of(value)
            if value is not None and first.setdefault(name, (number, kind))[1] != kind:
                return f"{name} is {first[name][1]} in row {first[name][0]} and {kind} in row {number}"
    return None
