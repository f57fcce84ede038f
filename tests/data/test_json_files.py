"""Rows of JSON as they stand; broken files are in tests/cli/test_convert.py."""

import gzip
import json
from pathlib import Path

import pytest

from hf_align.data.json_files import json_rows
from hf_align.data.row_files import suffix_of

ROWS = [{"a": "2024-01-31", "b": None}, {"a": 7, "c": [{"d": 1}, {"e": "x"}]}]
LINES = '{"a": "2024-01-31", "b": null}\n\n{"a": 7, "c": [{"d": 1}, {"e": "x"}]}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES.encode()),
        ("rows.ndjson", LINES.encode()),
        ("rows.JSONL", LINES.replace("\n", "\r\n").encode()),
        ("marked.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("rows.json", f"[{LINES.strip().replace(chr(10) * 2, ',')}]".encode()),
        ("lines.json", LINES.encode()),
        ("parted.json", LINES.encode() + '{"a": "\u2028"}\n'.encode()),
    ],
)
def test_values_of_json_stay_as_they_stand(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert list(json_rows(path, suffix_of(path))) == [*ROWS, *([{"a": "\u2028"}] if name == "parted.json" else [])]


MESSAGE = {"role": "user", "content": "Hi."}


@pytest.mark.parametrize("row", [{"a": "x", "b": ["y"]}, {"chosen": [MESSAGE], "rejected": [MESSAGE] * 2}])
def test_one_object_is_one_row(row: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row))
    assert list(json_rows(path, ".json")) == [row]


def test_an_object_of_columns_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    path.write_text(json.dumps({"chosen": ["a", "b"], "rejected": [["x"], None]}))
    assert list(json_rows(path, ".json")) == [{"chosen": "a", "rejected": ["x"]}, {"chosen": "b", "rejected": None}]
