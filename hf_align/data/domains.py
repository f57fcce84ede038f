"""Columns of an evaluation's data."""

from collections.abc import Sequence

from datasets import Dataset

from hf_align.errors import UserError

ALL = "all"
"""Name of the figures over all rows."""


def domains_of(rows: Dataset) -> list[str]:
    """The column `domain`, else `subset`, or "all" for every row.

    Raises:
        UserError: One of several domains is called "all".
    """
    column = next((name for name in ("domain", "subset") if name in rows.column_names), None)
    if column is None:
        return [ALL] * len(rows)
    domains = [str(domain) for domain in rows[column]]
    check_names(domains, column)
    return domains


def check_names(names: Sequence[str], column: str) -> None:
    """Refuse a part of the data whose figures would take the place of those over all rows."""
    if ALL in names and len(set(names)) > 1:
        raise UserError(
            f"Row {names.index(ALL)} has the {column} {ALL!r}, as the figures over all rows are called; rename it."
        )
