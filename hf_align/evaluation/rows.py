"""Rows of an evaluation's data, refused together where they can't be used."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from datasets import Dataset

from hf_align.collators.checks import group_rows, refuse
from hf_align.collators.rows import RowProblem

Value = TypeVar("Value")


def read_rows(rows: Dataset, read: Callable[[dict[str, Any]], Value]) -> list[Value]:
    """Read every row.

    Args:
        rows: The data.
        read: Gives what is wanted of a row, or raises `RowProblem`.

    Raises:
        UserError: Some rows have problems; it names each with the numbers of its first rows.
    """
    values, problems = [], []
    for row in rows.with_format(None):
        try:
            values.append(read(cast(dict[str, Any], row)))
            problems.append("")
        except RowProblem as problem:
            problems.append(str(problem))
    refuse(group_rows(problems), "data", "fix or drop them")
    return values


def domains_of(rows: Dataset) -> list[str]:
    """The column `domain`, or "all" for every row."""
    return [str(domain) for domain in rows["domain"]] if "domain" in rows.column_names else ["all"] * len(rows)
