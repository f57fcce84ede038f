"""Soft labels of pairs, and labels of auxiliary tasks."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from hf_align.collators.rows import RowProblem
from hf_align.numbers import number_problem

SOFT = ("label", "preference", "votes")
"""Columns of a pair that say how likely its first response is the better one."""
Tasks = Mapping[str, str | int]
"""Auxiliary tasks by name: "regression", "binary" or a number of classes."""
AGREEMENT = 1e-6


def read_label(row: Mapping[str, Any]) -> tuple[float | None, list[float] | None]:
    """P(first response better) of a pair, and the single votes behind it; None where the row has none.

    Args:
        row: May hold `label` or `preference`, in [0, 1], or `votes`: a list of 0, .5 (tie) and 1.

    Raises:
        RowProblem: A value is no probability or vote, or two of the columns contradict each other.
    """
    given = {name: row[name] for name in SOFT if row.get(name) is not None}
    for name in ("label", "preference"):
        if name in given and (number_problem(given[name]) or not 0 <= given[name] <= 1):
            raise RowProblem(f"a {name} that is no number between 0 and 1", "bad_number")
    votes = given.get("votes")
    if votes is not None:
        if not isinstance(votes, list) or not votes:
            raise RowProblem("votes that are no list of at least one", "bad_number")
        if any(number_problem(vote) or vote not in (0, 0.5, 1) for vote in votes):
            raise RowProblem("a vote that is not 0, 0.5 or 1", "bad_number")
    values = {name: fmean(value) if name == "votes" else float(value) for name, value in given.items()}
    if values and max(values.values()) - min(values.values()) > AGREEMENT:
        raise RowProblem(f"{' and '.join(values)} that contradict each other", "bad_number")
    return next(iter(values.values()), None), None if votes is None else [float(vote) for vote in votes]


def read_tasks(row: Mapping[str, Any], tasks: Tasks, count: int, kept: Sequence[int] = ()) -> dict[str, list[float]]:
    """Labels of a row's responses by task, NaN where a response has none.

    Args:
        row: A list with a value for each response under a task's name, or in pairs `chosen_NAME` and `rejected_NAME`.
        tasks: The tasks.
        count: Number of responses in the row.
        kept: Numbers of the responses to take. Default: all.

    Raises:
        RowProblem: A list has another length, or a value doesn't fit its task.
    """
    return {name: _read_task(row, name, kind, count, kept or range(count)) for name, kind in tasks.items()}


def weight_problems(row: Mapping[str, Any]) -> list[RowProblem]:
    """What is wrong with a row's `margin` and `weight`, as far as it has them."""
    return [problem for name in ("margin", "weight") if name in row and (problem := _weight_problem(row[name], name))]


def has_task(columns: Sequence[str], name: str) -> bool:
    """Whether a data set has labels of a task."""
    return name in columns or f"chosen_{name}" in columns or f"rejected_{name}" in columns


def _weight_problem(value: Any, name: str) -> RowProblem | None:
    if value is None:
        return RowProblem(f"no {name}", "missing")
    if problem := number_problem(value):
        return RowProblem(f"a {name} that is {problem}", "bad_number")
    return RowProblem(f"a negative {name}", "bad_number") if value < 0 else None


def _read_task(row: Mapping[str, Any], name: str, kind: str | int, count: int, kept: Sequence[int]) -> list[float]:
    values = row.get(name)
    if values is None:
        values = [row.get(f"chosen_{name}"), row.get(f"rejected_{name}")] if count == 2 else [None] * count
    if not isinstance(values, list) or len(values) != count:
        raise RowProblem(f"a {name} that is no list with one label for each response")
    return [_read_value(values[number], name, kind) for number in kept]


def _read_value(value: Any, name: str, kind: str | int) -> float:
    if value is None or value != value:
        return math.nan
    number = float(value) if isinstance(value, bool) else value
    if problem := number_problem(number):
        raise RowProblem(f"a label of {name} that is {problem}", "bad_number")
    if kind == "binary" and not 0 <= number <= 1:
        raise RowProblem(f"a label of {name} that is not between 0 and 1 (a binary task)", "bad_number")
    if isinstance(kind, int) and number not in range(kind):
        raise RowProblem(f"a label of {name} that is no whole number from 0 to {kind - 1}", "bad_number")
    return float(number)
