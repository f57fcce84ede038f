"""Writing of rows to a .jsonl, .parquet or .csv file or a folder, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, cast

from datasets import ClassLabel, Dataset, Features, Value

from hf_align.errors import UserError
from hf_align.files import DATA_FACTS, finite, whole_file, whole_folder, write_problem

FILES = (".jsonl", ".parquet", ".csv")
SAVED = "dataset_info.json"
"""File of a folder that `datasets` saved."""


def check_out(out: str | Path, features: Features, *, overwrite: bool = False) -> None:
    """Refuse a destination that can't be written or exists, before any work.

    Args:
        out: A .jsonl, .parquet or .csv file, or a folder: a name without suffix.
        features: Columns that it will have.
        overwrite: Whether an existing file, or folder saved by `datasets` or exported, may be replaced.

    Raises:
        UserError: It has another suffix, exists, is nowhere that can be written to, or can't hold a column.
    """
    path = Path(out)
    exists, is_folder, is_file = os.path.exists(path), os.path.isdir(path), path.suffix.lower() in FILES
    if not str(out):
        raise UserError("OUT is empty; name a file or a folder")
    if path.suffix and not is_file and not is_folder:
        raise UserError(f"OUT: {out} is neither one of {', '.join(FILES)} nor a folder (a name without suffix)")
    if exists and is_folder == is_file:
        raise UserError(f"OUT: {out} is a {'folder' if is_file else 'file'}; choose another name")
    if exists and not overwrite:
        raise UserError(f"OUT: {out} exists; add --overwrite (in Python overwrite=True) or choose another name")
    if is_folder and any(path.iterdir()) and not any((path / name).exists() for name in (SAVED, DATA_FACTS)):
        raise UserError(f"OUT: {out} holds other files than a data set and isn't replaced; choose another name")
    if problem := write_problem(path):
        raise UserError(f"OUT: {out} can't be written: {problem}")
    if path.suffix.lower() == ".csv" and (
        nested := [name for name in features if not isinstance(features[name], Value | ClassLabel)]
    ):
        raise UserError(f"OUT: a .csv file can't hold the lists in {', '.join(nested)}; write .jsonl or .parquet")


@dataclass(frozen=True)
class Source:
    """The file that rows were read from.

    Attributes:
        name: Its path; any other name is not looked for.
        rows: Number of rows read from it, of which the first are written.
    """

    name: str
    rows: int

    def raw(self, suffix: str) -> Iterable[Mapping[str, Any]] | None:
        """Its rows without any conversion; None if it has another format or number of rows."""
        path = Path(self.name)
        if path.suffix.lower() != suffix or not path.is_file() or sum(1 for _ in _raw_rows(path)) != self.rows:
            return None
        return _raw_rows(path)


def write_rows(rows: Dataset, out: str | Path, *, source: Source | None = None, added: Sequence[str] = ()) -> None:
    """Write a data set, with its columns, their types and order; the file or folder appears whole or not at all.

    Args:
        rows: The rows.
        out: See `check_out`.
        source: If it has the same text format as `out`, its rows are copied as they stand and get the columns `added`:
            Arrow would turn a text like "2024-01-31" into a time, and add the keys of other rows as null.
        added: Columns of `rows` that the source doesn't have.
    """
    path = Path(out)
    rows = rows.with_format(None)
    suffix = path.suffix.lower()
    if suffix not in FILES:
        with whole_folder(path) as folder:
            rows.save_to_disk(str(folder))
    elif suffix == ".parquet":
        with whole_file(path) as file:
            rows.to_parquet(str(file))
    else:
        raw = None if source is None else source.raw(suffix)
        plain = cast(Iterable[Mapping[str, Any]], rows)
        write_text_rows(plain if raw is None else _with_columns(raw, rows.select_columns(list(added))), path)


def write_text_rows(rows: Iterable[Mapping[str, Any]], out: str | Path) -> None:
    """Write rows one by one to a .jsonl or .csv file, which appears whole or not at all."""
    path = Path(out)
    write = _write_csv if path.suffix.lower() == ".csv" else _write_jsonl
    with whole_file(path) as file:
        write(file, rows)


def _raw_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="" if path.suffix.lower() == ".csv" else None) as lines:
        if path.suffix.lower() == ".csv":
            yield from csv.DictReader(lines)
        else:
            yield from (json.loads(line) for line in lines if line.strip())


def _with_columns(raw: Iterable[Mapping[str, Any]], added: Dataset) -> Iterator[dict[str, Any]]:
    for values, row in zip(cast(Iterable[Mapping[str, Any]], added), raw, strict=False):  # of the raw rows, the first
        yield {**row, **values}


def _write_jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(_json(row) + "\n")


def _json(row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_as_text)
    except ValueError:  # JSON has no NaN
        return json.dumps(finite(row), ensure_ascii=False, default=_as_text)


def _as_text(value: Any) -> str:
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    raise UserError(f"OUT: .jsonl can't hold a value of type {type(value).__name__}; write .parquet or a folder")


def _write_csv(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(lines, list(row))
                writer.writeheader()
            writer.writerow(row)
