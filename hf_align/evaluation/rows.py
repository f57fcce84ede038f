"""Columns of an evaluation's data."""

from datasets import Dataset


def domains_of(rows: Dataset) -> list[str]:
    """The column `domain`, or "all" for every row."""
    return [str(domain) for domain in rows["domain"]] if "domain" in rows.column_names else ["all"] * len(rows)
