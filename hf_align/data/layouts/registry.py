"""The known layouts in the order in which they are tried, and the recognition of a data set's."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from datasets import Dataset

from hf_align.data.layouts import (
    argilla,
    battles,
    exports,
    label_studio,
    messages,
    rankings,
    ratings,
    sheets,
    strings,
    trees,
)
from hf_align.data.layouts.layout import Layout, Row
from hf_align.errors import UserError

LAYOUTS: tuple[Layout, ...] = (
    *argilla.LAYOUTS,
    *label_studio.LAYOUTS,
    *exports.LAYOUTS,
    *trees.LAYOUTS,
    *battles.LAYOUTS,
    *ratings.LAYOUTS,
    *rankings.LAYOUTS,
    *messages.LAYOUTS,
    *strings.LAYOUTS,
    *sheets.LAYOUTS,
    strings.NATIVE,
)
"""Most specific first: the first that matches is recognised."""
_FIRST = 20  # rows whose types are looked at
_LISTED = 12  # columns in a message
_PAGE = "docs/reference/layouts.md"


def columns_of(rows: Dataset | Sequence[Row]) -> list[str]:
    """All columns, in order of appearance."""
    return rows.column_names if isinstance(rows, Dataset) else list(dict.fromkeys(name for row in rows for name in row))


def first_rows(rows: Dataset | Sequence[Row]) -> list[Row]:
    """The rows whose types are looked at."""
    return rows.select(range(min(len(rows), _FIRST))).to_list() if isinstance(rows, Dataset) else list(rows[:_FIRST])


def find_layout(name: str, columns: Sequence[str]) -> Layout:
    """The layout of a name, checked against a data set's columns.

    Raises:
        UserError: There is none of this name, or the data set lacks its columns.
    """
    layouts = {layout.name: layout for layout in LAYOUTS}
    if name not in layouts:
        nearest = difflib.get_close_matches(name, layouts, n=1, cutoff=0.6)
        meant = f"did you mean {nearest[0]}?" if nearest else f"{_PAGE} lists them"
        raise UserError(f"there is no layout {name}; {meant}")
    if lacking := layouts[name].lacks(columns):
        has = _list(columns)
        raise UserError(f"layout {name} needs the columns {_list(lacking)}; the data set has {has}")
    return _unambiguous(layouts[name], columns)


def recognise(columns: Sequence[str], rows: Sequence[Row]) -> Layout:
    """The layout of a data set, by its columns and the types of its first rows.

    Raises:
        UserError: None matches; the message lists what was seen and a layout that is near.
    """
    first = [{name: row.get(name) for name in columns} for row in rows]
    for layout in LAYOUTS:
        if layout.matches(columns, first):
            return _unambiguous(layout, columns)
    seen = _list([f"{_shown(name)} ({_kind(first, name)})" for name in columns])
    raise UserError(f"the data set has none of the known layouts; it has {seen}. {_nearest(columns)}")


def _unambiguous(layout: Layout, columns: Sequence[str]) -> Layout:
    for names in () if layout.loose else layout.columns:
        if len(there := [name for name in names.split("|") if name in columns]) > 1:
            raise UserError(
                f"recognised {layout.name}, which has one of {' and '.join(there)}, and the data set has both: "
                "drop or rename one"
            )
    return layout


def _nearest(columns: Sequence[str]) -> str:
    with_columns = [each for each in LAYOUTS if not each.lacks(columns) and not set(each.without) & set(columns)]
    if with_columns:
        layout = max(with_columns, key=lambda each: (each.unchanged, len(each.columns)))
        return f"The columns are those of {layout.name} ({layout.source}), but their values have other types"

    def far(layout: Layout) -> tuple[bool, float, int]:  # the plain ones first, which are returned unchanged
        return not layout.unchanged, _distance(layout, columns), len(layout.columns)

    akin = [layout for layout in LAYOUTS if 3 * _distance(layout, columns) <= 2 * len(layout.columns)]
    if not akin:
        return f"{_PAGE} lists the layouts: rename the columns to those of one"
    layout = min(akin, key=far)
    lacking = layout.lacks(columns)
    if layout.unchanged and "prompt" in columns and len(lacking) == len(layout.columns) - 1 and not _near_any(columns):
        return (
            "With a prompt alone there is nothing to compare: pairs have chosen and rejected, too, and rankings have "
            "responses with ranking, scores or ratings"
        )
    if not lacking:
        beyond = _list(set(layout.without) & set(columns))
        return f"The nearest is {layout.name} ({layout.source}), which has no {beyond}"
    meant = [f"{name} (is it {_shown(near)}?)" if (near := _misspelt(name, columns)) else name for name in lacking]
    return f"The nearest is {layout.name} ({layout.source}), which needs {_list(meant)}, too: rename the columns"


def _distance(layout: Layout, columns: Sequence[str]) -> float:
    """Number of its columns that are missing; a misspelt one counts as half there."""
    return sum(0.5 if _misspelt(name, columns) else 1.0 for name in layout.lacks(columns))


def _near_any(columns: Sequence[str]) -> bool:
    """Whether a column may be a misspelt one of pairs or rankings."""
    return any(_misspelt(name, columns) for each in LAYOUTS if each.unchanged for name in each.lacks(columns))


def _misspelt(name: str, columns: Sequence[str]) -> str | None:
    near = (difflib.get_close_matches(each, columns, n=1, cutoff=0.75) for each in name.split("|"))
    return next((each[0] for each in near if each), None)


def _shown(name: str) -> str:
    """A column's name, in quotes where it couldn't be told from another."""
    return name if name == name.strip() else repr(name)


def _kind(rows: Sequence[Row], name: str) -> str:
    value = next((row[name] for row in rows if row.get(name) is not None), None)
    if isinstance(value, list):
        return f"list of {type_of(value[0])}" if value else "empty list"
    return type_of(value)


def type_of(value: Any) -> str:
    """A value's type in words."""
    names = {str: "text", bool: "true or false", int: "number", float: "number", dict: "keys", list: "list"}
    if isinstance(value, dict):
        return f"dict of {', '.join(list(value)[:4])}"
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _list(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
    return (", ".join(map(_alternatives, shown[:_LISTED])) + more) or "no columns"


def _alternatives(names: str) -> str:
    first, *others = names.split("|")
    return " or ".join([first, *others[:2]]) + (" or the like" if len(others) > 2 else "")
