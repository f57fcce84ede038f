"""Fingerprints of data sets: the same rows in the same order have the same one, whatever file they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from datasets import Dataset, IterableDataset

MOST = 100_000
"""Rows that a fingerprint is computed of: of a larger set, so many evenly spread ones."""

FIRST = 512
"""Of a stream, whose number of rows isn't known, so many from its beginning."""


def rows_digest(rows: Dataset) -> str:
    """A digest of the rows' content, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in rows.with_format(None).iter(batch_size=1000):
        digest.update(json.dumps(batch, default=str, sort_keys=True).encode())
    return digest.hexdigest()


def same_rows(first: Dataset, second: Dataset) -> bool:
    """Whether two data sets have the same rows in the same order, as far as their fingerprints tell."""
    if len(first) != len(second) or first.column_names != second.column_names:
        return False
    return first._fingerprint == second._fingerprint or len({_spread_digest(rows) for rows in (first, second)}) == 1


def _spread_digest(rows: Dataset) -> str:
    return rows_digest(rows.select([place * len(rows) // MOST for place in range(MOST)]) if len(rows) > MOST else rows)


def digest_of(rows: Sequence[Any]) -> str:
    """A digest of rows in memory, whose values may have other types from row to row."""
    return hashlib.blake2b(json.dumps(rows, default=str, sort_keys=True).encode(), digest_size=16).hexdigest()


def fingerprints_of(**datasets: Any) -> dict[str, Any]:
    """Fingerprint and number of rows of each data set by its name; those that are None are left out.

    Args:
        **datasets: A `Dataset`, a list of rows, or a dict of these; or a stream (of `datasets` or torch, or another
            object that begins anew each time it is iterated), of which the first rows are read.

    Example:
        >>> from hf_align.data.fingerprint import fingerprints_of
        >>> fingerprints_of(train=[{"prompt": "Hello."}], eval=None)
        {'train': {'rows': 1, 'fingerprint': '2089de00c182a0a351a7ce0937883cbe'}}
    """
    found: dict[str, Any] = {}
    for name, data in datasets.items():
        if isinstance(data, Mapping):
            found |= fingerprints_of(**{f"{name}_{part}": rows for part, rows in data.items()})
        elif isinstance(data, Dataset) or (isinstance(data, Sequence) and data):
            rows = data if isinstance(data, Dataset) else Dataset.from_list(list(data))
            found[name] = {"rows": len(rows), "fingerprint": _spread_digest(rows)}
        elif isinstance(data, Iterable) and not isinstance(data, Sequence | Iterator):
            stream = data.with_format(None) if isinstance(data, IterableDataset) else data
            first = list(islice(stream, FIRST))
            found[name] = {"rows": None, "first_rows": len(first), "fingerprint": digest_of(first)}
    return found
