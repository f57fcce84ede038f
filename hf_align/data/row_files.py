"""Files of rows: their kinds, what is wrong with one, and the lines of those that are text."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_STARTS = {
    b"PAR1": ("a Parquet file", (".parquet",)),
    b"\x1f\x8b": ("a gzip file", (".jsonl.gz", ".ndjson.gz", ".json.gz", ".csv.gz", ".tsv.gz")),
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


READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".ndjson": "json"}
READERS |= {f"{suffix}.gz": reader for suffix, reader in READERS.items() if reader != "parquet"}
"""What is in a file, by its suffix."""


class FileProblem(ValueError):
    """What is wrong with a file.

    Args:
        reason: Worded to follow "FILE can't be read: "; or, from "line 3 ...", to follow "FILE, ".
        file: The file's name. Default: the one that was asked for.
    """

    def __init__(self, reason: str, file: str | None = None):
        super().__init__(reason)
        self.file = file


def suffix_of(path: Path) -> str:
    """The suffix in lower case, ".jsonl.gz" for one that is compressed."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() + suffix if suffix == ".gz" else suffix


def check_start(path: Path, suffix: str) -> None:
    """Check that a file isn't empty and not of another kind than its suffix says.

    Raises:
        FileProblem: It is.
    """
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if not start.strip(b" \t\r\n\x00\xef\xbb\xbf"):
        raise FileProblem("it holds only NUL bytes" if b"\x00" in start else "it is empty")
    for begins, (kind, suffixes) in _STARTS.items():
        if start[:64].lstrip().lower().startswith(begins.lower()) and suffix not in suffixes:
            meant = f"; name it {suffixes[0]}" if len(suffixes) == 1 else ""
            raise FileProblem(f"it is {kind}{meant}")
    if suffix == ".parquet" and not start.startswith(b"PAR1"):
        raise FileProblem("it is no Parquet file")
    if suffix.endswith(".gz") and not start.startswith(b"\x1f\x8b"):
        raise FileProblem("it is no gzip file; is it not compressed?")


def check_parquet(path: Path) -> None:
    """Check that a Parquet file is whole and has rows and one column of each name.

    Raises:
        FileProblem: It isn't, or hasn't.
    """
    try:
        with pq.ParquetFile(path) as file:
            rows, names = file.metadata.num_rows, file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        reason = re.sub(r"\w+Exception: ", "", str(error).split(". ")[0].strip())
        raise FileProblem(f"it is a damaged Parquet file ({reason})") from None
    check_names(names)
    if not rows:
        raise FileProblem("it has no rows")


def check_names(names: list[str]) -> None:
    """Check that every column has a name of its own.

    Raises:
        FileProblem: One hasn't, or the one name looks like several.
    """
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise FileProblem(f"it has the column {twice[0]!r} twice")
    if len(names) > 1 and not all(name.strip() for name in names):
        column = [bool(name.strip()) for name in names].index(False) + 1
        index = "; is it the index that pandas writes without index=False?" if column == 1 else ""
        raise FileProblem(f"line 1 has no name for column {column}{index}")
    if len(names) == 1 and (separator := next((each for each in ";\t,|" if each in names[0]), None)):
        raise FileProblem(f"its columns are separated by {separator!r}; a .csv file has ',' and a .tsv file tabs")


def numbered_lines(path: Path, suffix: str) -> Iterator[tuple[int, str]]:
    """Lines of a text file, compressed if the suffix ends with .gz, with their numbers from 1.

    Raises:
        FileProblem: A line is not UTF-8 or holds a NUL byte, or the compressed file is damaged.
    """
    try:
        with gzip.open(path) if suffix.endswith(".gz") else path.open("rb") as file:
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
