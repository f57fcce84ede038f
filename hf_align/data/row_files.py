"""Text files of rows: what is wrong with one and in which line, and rows of JSON as they stand."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_STARTS = {
    b"PAR1": ("a Parquet file", (".parquet",)),
    b"\x1f\x8b": ("a gzip file", (".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz")),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", ()),
    b"ARROW1": ("an Arrow file", ()),
    b"\x28\xb5\x2f\xfd": ("a zstd file", ()),
    b"\xfd7zXZ": ("an xz file", ()),
    b"\xff\xfe": ("UTF-16 text", ()),
    b"\xfe\xff": ("UTF-16 text", ()),
    b"version https://git-lfs": ("a Git LFS pointer, without the data", ()),
    b"<!doctype html": ("an HTML page", ()),
    b"<html": ("an HTML page", ()),
}
"""What files begin with, and the suffixes of which that is true."""


class FileProblem(ValueError):
    """What is wrong with a file, worded to follow "FILE can't be read: "; or, from "line 3 ...", to follow "FILE, "."""


def suffix_of(path: Path) -> str:
    """The suffix in lower case, ".jsonl.gz" for one that is compressed."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() + suffix if suffix == ".gz" else suffix


def check_start(path: Path) -> None:
    """Check that a file isn't empty and not of another kind than its name says.

    Raises:
        FileProblem: It is.
    """
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if not start.strip(b" \t\r\n\x00\xef\xbb\xbf"):
        raise FileProblem("it holds only NUL bytes" if b"\x00" in start else "it is empty")
    suffix = suffix_of(path)
    for begins, (kind, suffixes) in _STARTS.items():
        if start[:64].lstrip().lower().startswith(begins.lower()) and suffix not in suffixes:
            meant = f"; name it {suffixes[0]}" if len(suffixes) == 1 else ""
            raise FileProblem(f"it is {kind}{meant}")
    if suffix == ".parquet" and not start.startswith(b"PAR1"):
        raise FileProblem("it is no Parquet file")
    if suffix.endswith(".gz") and not start.startswith(b"\x1f\x8b"):
        raise FileProblem("it is no gzip file; is it not compressed?")


def json_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl or .json file (or .gz of it), with the values as they stand.

    Raises:
        FileProblem: It isn't UTF-8, a line is no JSON object, an object has a key twice, or a .json file is no list of
            objects.
    """
    check_start(path)
    if suffix_of(path).startswith(".jsonl"):
        rows = [_object(line, number) for number, line in _lines(path) if line.strip()]
    else:
        text = "".join(line for _, line in _lines(path))
        rows = _objects(text)
    if not rows:
        raise FileProblem("it has no rows")
    return rows


_TRUTHS = ("true", "True", "TRUE", "false", "False", "FALSE")
_NUMBER = re.compile(r"\s*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity)\s*", re.IGNORECASE)


def check_table(path: Path) -> dict[str, bool]:
    """Check that a .csv or .tsv file is UTF-8 and has one name for each column and one value for each name.

    Returns:
        The names, and whether the column holds texts: anything but numbers alone, or true and false alone.

    Raises:
        FileProblem: It isn't, or hasn't.
    """
    csv.field_size_limit(1 << 30)
    separator = "\t" if suffix_of(path).startswith(".tsv") else ","
    reader = csv.reader((line for _, line in _lines(path)), delimiter=separator, strict=True)
    names: list[str] = []
    kinds: list[set[str]] = []
    rows = 0
    try:
        for values in reader:
            if not names:
                names = values
                _check_names(names)
                kinds = [set() for _ in names]
            elif values and len(values) != len(names):
                raise FileProblem(
                    f"line {reader.line_num} has {len(values)} values for {len(names)} columns; is a quote missing?"
                )
            else:
                rows += bool(values)
                for kind, value in zip(kinds, values, strict=False):  # a blank line has none
                    if value and "text" not in kind:
                        kind.add(_kind(value))
    except csv.Error as error:
        raise FileProblem(f"line {reader.line_num} is not CSV: {error}") from None
    if not rows:
        raise FileProblem("it has no rows")
    return {name: "text" in kind or len(kind) > 1 for name, kind in zip(names, kinds, strict=True)}


def _kind(cell: str) -> str:
    if _NUMBER.fullmatch(cell):
        return "number"
    return "truth" if cell in _TRUTHS else "text"


def check_parquet(path: Path) -> None:
    """Check that a Parquet file is whole and has rows and one column of each name.

    Raises:
        FileProblem: It isn't, or hasn't.
    """
    try:
        with pq.ParquetFile(path) as file:
            rows, names = file.metadata.num_rows, file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise FileProblem(f"it is a damaged Parquet file ({str(error).split('. ')[0].strip()})") from None
    _check_names(names)
    if not rows:
        raise FileProblem("it has no rows")


def _check_names(names: list[str]) -> None:
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise FileProblem(f"it has the column {twice[0]!r} twice")
    if len(names) > 1 and not all(name.strip() for name in names):
        raise FileProblem(f"line 1 has no name for column {[bool(name.strip()) for name in names].index(False) + 1}")
    if len(names) == 1 and (separator := next((each for each in ";\t,|" if each in names[0]), None)):
        raise FileProblem(f"its columns are separated by {separator!r}; a .csv file has ',' and a .tsv file tabs")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1."""
    compressed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if b"\x00" in text:
                    raise FileProblem(f"line {number} holds a NUL byte; it is damaged")
                yield number, _decoded(text, number)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise FileProblem("it is a damaged gzip file, perhaps cut off") from None


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileProblem(f"line {number} is not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line, object_pairs_hook=_once)
    except FileProblem as problem:
        raise FileProblem(f"line {number} {problem}") from None
    except (ValueError, RecursionError):
        if number == 1 and line.lstrip().startswith("["):
            raise FileProblem("it is one JSON list, not one object a line; name it .json") from None
        if number == 1 and line.strip() == "{":
            raise FileProblem("line 1 is only the start of a JSON object; write each row in one line") from None
        raise FileProblem(f"line {number} is not a JSON object; fix or drop it") from None
    if number == 1 and isinstance(value, list) and all(isinstance(each, dict) for each in value):
        raise FileProblem("it is one JSON list, not one object a line; name it .json")
    if not isinstance(value, dict):
        raise FileProblem(f"line {number} is not a JSON object; fix or drop it")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FileProblem(f"has the key {twice!r} twice in one object")
    return values


def _objects(text: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except FileProblem as problem:
        raise FileProblem(f"it {problem}") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[: error.pos].lstrip().startswith("{"):
            return [_object(line, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        where = "is cut off" if cut else "is not JSON"
        raise FileProblem(f"line {error.lineno} {where}: {error.msg}") from None
    except RecursionError:
        raise FileProblem("it is nested too deeply") from None
    if isinstance(value, Mapping) and (lists := [name for name, each in value.items() if _is_rows(each)]):
        raise FileProblem(f"it is one JSON object whose rows are under {lists[0]!r}; save that list alone")
    if not isinstance(value, list):
        kind = "object" if isinstance(value, Mapping) else "value"
        raise FileProblem(f"it is one JSON {kind}, not a list of rows")
    for number, row in enumerate(value):
        if not isinstance(row, dict):
            raise FileProblem(f"row {number} of its list is not an object")
    return value


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
