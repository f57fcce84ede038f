"""Data sets of every form as one that can be read again by row numbers."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from hf_align.collators.checks import as_dataset
from hf_align.collators.tools import to_dataset
from hf_align.errors import UserError

PART = 1000
"""Rows of a stream that are held in memory at a time."""


class Pages:
    """Memory-mapped Arrow files whose pages can be given back, so that memory stays flat however large they are."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def table(self, path: Path) -> pa.Table:
        """The table in a file."""
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps.append(mapped)
        return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()

    def release(self) -> None:
        """Give all pages back; they are read again where they are needed. Not every system can."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)


def only_split(dataset: Any, name: str) -> Any:
    """The one split of a dictionary of splits; anything else unchanged.

    Raises:
        UserError: It has several splits, or none.
    """
    if not isinstance(dataset, DatasetDict | IterableDatasetDict):
        return dataset
    if len(dataset) == 1:
        return next(iter(dataset.values()))
    names = ", ".join(map(str, dataset))
    raise UserError(
        f"{name} has the splits {names}: pass one of them, as in {name}['{next(iter(dataset))}'], and another as "
        "eval_dataset to look for rows that both have."
        if dataset
        else f"{name} has no split."
    )


def stored(dataset: Any, name: str, folder: Path, pages: Pages) -> Dataset:
    """A data set whose rows can be fetched by number.

    Args:
        dataset: A `Dataset`, a list of dicts, an `IterableDataset`, or a dictionary with one split.
        name: The argument's name, for messages.
        folder: A folder for the rows of a stream, which is read once. They are memory-mapped, so it must stay.
        pages: Receives these files.

    Raises:
        UserError: It is of another type, has no rows, or columns whose types change from row to row.
    """
    dataset = only_split(dataset, name)
    if isinstance(dataset, IterableDataset):
        dataset = _written(dataset, name, folder, pages)
    return as_dataset(dataset, name, ()).with_format(None)


def _written(rows: Iterable[dict[str, Any]], name: str, folder: Path, pages: Pages) -> Dataset:
    """The rows of a stream in an Arrow file, or in several where the types of columns change."""
    stream, first = iter(rows), 0
    files: list[Path] = []
    writer: pa.ipc.RecordBatchFileWriter | None = None
    schema: pa.Schema | None = None
    while part := list(islice(stream, PART)):
        try:
            table = to_dataset(part).data.table.replace_schema_metadata(None)
        except (TypeError, ValueError, OverflowError) as error:  # Arrow's errors have these types
            raise UserError(
                f"{name}: rows {first} to {first + len(part) - 1} have a column with values of several types ({error})."
            ) from error
        if writer is None or table.schema != schema:
            if writer is not None:
                writer.close()
            schema = table.schema
            files.append(folder / f"{first}.arrow")
            writer = pa.ipc.new_file(str(files[-1]), schema)
        writer.write_table(table)
        first += len(part)
    if writer is None:
        raise UserError(f"{name} has no rows.")
    writer.close()
    tables = list(map(pages.table, files))
    try:  # a column may be empty in one file, or hold whole numbers there and others later
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"{name} must have one type in each column throughout: {error}.") from error
    return Dataset(table, fingerprint=uuid4().hex)  # without one, it would be hashed, in a copy
