"""Tables of several raters' values for the same units, read into one entry per value."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hf_align.errors import UserError
from hf_align.numbers import LARGEST, number_problem

Level = Literal["nominal", "ordinal", "interval", "ratio"]
"""Level of measurement: names, ranks, numbers with equal steps, numbers with a true zero."""
LEVELS: tuple[Level, ...] = get_args(Level)
Table = NDArray[Any] | Sequence[Sequence[Any]] | Mapping[Any, Any]
"""Raters x units with None or NaN for gaps; or a unit's values by unit: a list, or a value by annotator."""


@dataclass(frozen=True)
class Answers:
    """N values, one entry each.

    Attributes:
        values: `[N]` numbers; at level nominal a number per label.
        unit: `[N]` number of the unit that each was given to.
        rater: `[N]` number of the rater who gave it; None where raters are unknown.
        units: Names of the units.
        raters: Names of the raters; empty where they are unknown.
    """

    values: NDArray[np.float64]
    unit: NDArray[np.intp]
    rater: NDArray[np.intp] | None
    units: Sequence[Hashable]
    raters: Sequence[Hashable] = ()

    def of(self, chosen: NDArray[np.bool_]) -> Answers:
        """Those chosen of the values, `[N]`, under the same numbers of units and raters."""
        rater = None if self.rater is None else self.rater[chosen]
        return Answers(self.values[chosen], self.unit[chosen], rater, self.units, self.raters)


def read_answers(table: Table, level: Level) -> Answers:
    """Read a table.

    Args:
        table: See `Table`.
        level: See `Level`. Labels of any hashable type at level nominal, numbers at the others.

    Raises:
        UserError: if the level is unknown, or the table isn't one, is ragged or has values that don't fit the level.
    """
    if level not in LEVELS:
        raise UserError(f"level is {level!r}; use one of {', '.join(LEVELS)}")
    if isinstance(table, Mapping):
        return _of_units(table, level)
    rows = table.tolist() if isinstance(table, np.ndarray) else table
    if not isinstance(rows, list | tuple) or not all(isinstance(row, list | tuple | np.ndarray) for row in rows):
        raise UserError("table must be raters x units (two dimensions), or a mapping from each unit to its values")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise UserError(
            f"table has rows of {lengths[0]} to {lengths[-1]} values: a row is a rater with a value, None or NaN for "
            "each unit; where raters are unknown, give a mapping from each unit to its list of values"
        )
    units = max(lengths, default=0)
    values, given = _numbers(list(chain(*rows)), level, lambda n: f"rater {n // units}, unit {n % units}")
    rater, unit = (part[given] for part in np.divmod(np.arange(len(given)), max(units, 1)))
    return Answers(values, unit, rater, range(units), range(len(rows)))


def _of_units(table: Mapping[Any, Any], level: Level) -> Answers:
    names, parts = list(table), list(table.values())
    known = bool(parts) and isinstance(parts[0], Mapping)
    for name, part in table.items():
        if not isinstance(part, Mapping if known else list | tuple | np.ndarray):
            kind = "a mapping from annotators to values" if known else "a list of values"
            raise UserError(f"unit {name!r} has {type(part).__name__} {part!r}, not {kind}, as the first unit has")
    unit = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    cells = list(chain.from_iterable(part.values() if known else part for part in parts))
    values, given = _numbers(cells, level, lambda n: f"unit {names[unit[n]]!r}")
    if not known:
        return Answers(values, unit[given], None, names)
    numbers: dict[Hashable, int] = {}
    rater = np.array([numbers.setdefault(r, len(numbers)) for part in parts for r in part], dtype=np.intp)
    return Answers(values, unit[given], rater[given], names, list(numbers))


def _numbers(
    cells: list[Any], level: Level, place: Callable[[int], str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values as numbers, and which of the cells have one."""
    if set(map(type, cells)) <= {int, float, type(None)}:  # at once: a data set has a million
        values = np.array(cells, dtype=float)
        given = ~np.isnan(values)
        largest = np.abs(values[given]).max(initial=0)
        if largest < (_EXACT if level == "nominal" else LARGEST) and (level != "ratio" or not (values < 0).any()):
            return values[given], given
    given = np.array([not _is_gap(cell) for cell in cells], dtype=bool)
    if level != "nominal":
        return np.array(
            [_number(cells[n], level, place(n)) for n in np.flatnonzero(given).tolist()], dtype=float
        ), given
    labels: dict[Any, int] = {}
    try:
        found = [labels.setdefault(cells[n], len(labels)) for n in np.flatnonzero(given).tolist()]
    except TypeError:
        raise UserError("table has a value that is no label (a list or a dict): use numbers or texts") from None
    return np.array(found, dtype=float), given


def _number(value: Any, level: Level, place: str) -> float:
    if problem := number_problem(value):
        hint = '; number the categories in their order, or use level="nominal"' if isinstance(value, str) else ""
        raise UserError(f"{place}: {value!r} is {problem}, which level={level!r} can't use{hint}")
    if level == "ratio" and value < 0:
        raise UserError(f'{place}: {value!r} is below 0, which has no ratio; use level="interval"')
    return float(value)


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(value != value))


_EXACT = 2.0**53
"""Whole numbers below this are told apart as floats."""
