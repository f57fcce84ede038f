"""A layout of preference data: the columns it is recognised by, and the way from its rows to pairs or rankings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_align.collators.judged import Kind
from hf_align.collators.rows import RowProblem
from hf_align.errors import UserError
from hf_align.numbers import number_problem

Row = Mapping[str, Any]
Made = dict[str, Any]
"""A pair or a ranking."""
Ties = Literal["drop", "keep"]
READ = ("prompt", "chosen", "rejected", "responses", "ranking", "scores", "ratings", "label", "preference", "votes")
READ = (*READ, "margin", "weight", "tools", "chat_template_kwargs", "prompt_ids", "response_ids", "ranks")
"""Columns that trainers read: a layout's other columns of these names are renamed."""


GAP_DIGITS = 9  # so that a gap of 2.8 - 2.3 is .5 and not .49999999999999982


class Unusable(ValueError):
    """Why a row can't be converted, worded to follow "rows with": "another number of ratings than responses"."""


UNREADABLE = (Unusable, RowProblem, KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration)
"""What a conversion raises for a row: by intent, or because something inside is null, missing or of another type."""


def problem_of(error: Exception) -> str:
    """What is wrong with a row, worded to follow "rows with".

    Raises:
        UserError: The error is one, which concerns the data set as a whole.
    """
    if isinstance(error, UserError):
        raise error
    if isinstance(error, Unusable | RowProblem):
        return str(error)
    return f"values that don't fit the layout ({_misfit(error)})"


_TYPES = {"NoneType": "null", "str": "text", "dict": "a mapping", "list": "a list", "int": "a number"}
_TYPES |= {"float": "a number", "bool": "true or false"}


def _misfit(error: Exception) -> str:
    """What Python says about a value, in words of data."""
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, AttributeError):
        needed = next((kind for kind in (dict, str, list) if hasattr(kind, error.name or "")), dict)
        return f"{_TYPES.get(type(error.obj).__name__, 'a value')} in place of {_TYPES[needed.__name__]}"
    if isinstance(error, IndexError | StopIteration):
        return "a list is too short"
    return "one is of another type or form"


@dataclass
class Tally:
    """What was asked for, and what a conversion leaves out.

    Attributes:
        ties: "drop" comparisons without a better response, or "keep" them: both orders, each with weight 0.5.
        min_gap: Rated responses become a pair if their ratings are further apart than this.
        dropped: Number of comparisons left out, by reason.
        unusable: Numbers of the rows left out, by what they have.
    """

    ties: Ties = "drop"
    min_gap: float = 0.5
    dropped: dict[str, int] = field(default_factory=dict)
    unusable: dict[str, list[int]] = field(default_factory=dict)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count comparisons that are left out; the reason is a plural, such as "ties"."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def refuse(self, number: int, problem: str) -> None:
        """Count a row that can't be used; see `Unusable` for the wording."""
        self.unusable.setdefault(problem, []).append(number)

    def compare(
        self,
        prompt: Any,
        first: Any,
        second: Any,
        preference: float,
        others: Row,
        *,
        margin: float | None = None,
        each: Mapping[str, tuple[Any, Any]] | None = None,
    ) -> list[Made]:
        """Pairs from a comparison: one if a response is better, for a tie none, or both orders with weight 0.5.

        Args:
            prompt: Of both responses.
            first: A response.
            second: The other.
            preference: Above .5 if the first is better, below if the second is, .5 for a tie.
            others: Other columns.
            margin: How much better. Where ties are kept it is called `strength`: weighted by a margin of 0, a tie would
                be lost.
            each: Values of the two responses by name: "model" becomes `chosen_model` and `rejected_model`.
        """
        if first == second:
            self.drop("pairs of identical responses")
            return []
        if preference == 0.5 and self.ties == "drop":
            self.drop("ties")
            return []
        orders = [preference > 0.5] if preference != 0.5 else [True, False]
        made: list[Made] = []
        for forward in orders:
            chosen, rejected = (first, second) if forward else (second, first)
            pair: Made = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            if self.ties == "keep":
                pair["weight"] = 1.0 / len(orders)
            if margin is not None:
                pair["strength" if self.ties == "keep" else "margin"] = float(margin)
            for name, values in (each or {}).items():
                pair[f"chosen_{name}"], pair[f"rejected_{name}"] = values if forward else values[::-1]
            made.append(pair | dict(others))
        return made


Convert = Callable[[Row, Tally], list[Made]]
"""Pairs or rankings of one row; raises `Unusable`."""
Whole = Callable[[Iterable[tuple[int, Row]], Tally], Iterator[Made]]
"""Pairs or rankings of all rows, which come with their numbers; unusable rows are told to the tally."""


@dataclass(frozen=True)
class Layout:
    """A layout of rows.

    Attributes:
        name: Such as "helpsteer3".
        source: The data set or tool it is known from.
        columns: Columns that it must have; alternatives are separated by "|", as in "rating|score".
        fits: Whether the values of a row with these columns have the right types.
        makes: "pairs" or "rankings".
        convert: Converts a row. None with `whole`, or where rows are returned unchanged.
        whole: Converts all rows at once, where rows belong together.
        without: Columns that it must not have.
        loose: Whether case, spaces and punctuation of `columns` don't matter ("responsea" is "Response A", too), and
            several alternatives may be there.
        share: Share of the first rows that have to fit; 0: one of them.
    """

    name: str
    source: str
    columns: tuple[str, ...]
    fits: Callable[[Row], bool]
    makes: Kind = "pairs"
    convert: Convert | None = None
    whole: Whole | None = None
    without: tuple[str, ...] = ()
    loose: bool = False
    share: float = 0.5

    @property
    def unchanged(self) -> bool:
        """Whether rows are returned as they are."""
        return self.convert is None and self.whole is None

    def lacks(self, columns: Iterable[str]) -> list[str]:
        """Those of its columns that aren't there; of many alternatives the first."""
        there = set(map(plain, columns)) if self.loose else set(columns)
        lacking = [name for name in self.columns if not there & set(name.split("|"))]
        return [name.split("|")[0] for name in lacking] if self.loose else lacking

    def matches(self, columns: Sequence[str], rows: Sequence[Row]) -> bool:
        """Whether the columns are there and the values of at least `share` of the rows fit: some may be defective."""
        if self.lacks(columns) or set(self.without) & set(columns):
            return False
        return sum(map(self._fits, rows)) >= max(self.share * len(rows), 1)

    def _fits(self, row: Row) -> bool:
        try:
            return self.fits(row)
        except UNREADABLE as error:
            if isinstance(error, UserError):  # of the columns
                raise
            return False


def plain(name: str) -> str:
    """A column's name without case, spaces and punctuation: "Response A" and "response_a" are "responsea"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def rank_order(values: Sequence[float | None]) -> list[int | None]:
    """Ranks from 0 for the lowest value, equal ones tied; None stays."""
    place = {value: number for number, value in enumerate(sorted({each for each in values if each is not None}))}
    return [None if value is None else place[value] for value in values]


def pair(prompt: Any, chosen: Any, rejected: Any, others: Row) -> list[Made]:
    """A row that was a pair before, whatever it holds: to find defects is inspection's part."""
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected, **others}]


def first_of(row: Row, names: str) -> Any:
    """The value of the first of some columns, "rating|score", that is there; None if none is."""
    return next((row[name] for name in names.split("|") if row.get(name) is not None), None)


def kept(row: Row, *used: str) -> Made:
    """The columns that aren't used; those that trainers would read get the prefix `source_`."""
    return {f"source_{name}" if name in READ else name: value for name, value in row.items() if name not in used}


def is_text(*values: Any) -> bool:
    """Whether all are texts."""
    return all(isinstance(value, str) for value in values)


def is_texts(value: Any) -> bool:
    """Whether it is a list of texts, at least one."""
    return isinstance(value, list) and bool(value) and is_text(*value)


def is_number(*values: Any) -> bool:
    """Whether all are finite numbers."""
    return not any(map(number_problem, values))


def is_numbers(value: Any) -> bool:
    """Whether it is a list of finite numbers, or None for some, and one at least."""
    return (
        isinstance(value, list) and (there := [each for each in value if each is not None]) != [] and is_number(*there)
    )


def is_records(value: Any, *keys: str) -> bool:
    """Whether it is a list of dicts with these keys, at least one."""
    records = value if isinstance(value, list) else []
    return bool(records) and all(isinstance(each, dict) and set(keys) <= set(each) for each in records)


def is_messages(value: Any) -> bool:
    """Whether it is a list of messages with role and content."""
    return is_records(value, "role", "content")


def need_text(row: Row, *names: str) -> list[str]:
    """Texts of columns, not empty.

    Raises:
        Unusable: One is missing, empty or no text.
    """
    for name in names:
        value = row.get(name)
        if not isinstance(value, str):
            raise Unusable(f"no {name}" if value is None else f"a {name} that is no text")
        if not value.strip():
            raise Unusable(f"an empty {name}")
    return [row[name] for name in names]


def need_number(value: Any, name: str) -> float:
    """The value as a number.

    Raises:
        Unusable: It is missing, or no finite number.
    """
    if value is None:
        raise Unusable(f"no {name}")
    if problem := number_problem(value):
        raise Unusable(f"a {name} that is {problem}")
    return float(value)


def user(text: str, system: str | None = None) -> list[dict[str, str]]:
    """A prompt of one user message, after a system message if there is one."""
    start = [{"role": "system", "content": system}] if system and system.strip() else []
    return [*start, {"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    """A response of one message."""
    return [{"role": "assistant", "content": text}]
