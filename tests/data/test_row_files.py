"""Rows of text files as they stand; broken files are in tests/cli/test_convert.py."""

import gzip
from pathlib import Path

import pytest

from hf_align.data.row_files import FileProblem, check_table, json_rows, suffix_of

ROWS = [{"a": "2024-01-31", "b": None}, {"a": 7, "c": [{"d": 1}, {"e": "x"}]}]
LINES = '{"a": "2024-01-31", "b": null}\n\n{"a": 7, "c": [{"d": 1}, {"e": "x"}]}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES.encode()),
        ("rows.JSONL", LINES.replace("\n", "\r\n").encode()),
        ("marked.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("rows.json", f"[{LINES.strip().replace(chr(10) * 2, ',')}]".encode()),
        ("lines.json", LINES.encode()),
    ],
)
def test_values_of_json_stay_as_they_stand(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert json_rows(tmp_path / name) == ROWS


@pytest.mark.parametrize(
    "table",
    ["a,b\n1,2\n", "a\n1\n", '"a","b"\n"x, ""y""\nz",2\n', "a,b\r\n1,2\r\n\r\n", "\ufeffa,b\n1,\n"],
)
def test_whole_tables_are_not_refused(table: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(table.encode())
    assert list(check_table(tmp_path / "rows.csv")) in (["a"], ["a", "b"])


def test_a_column_of_a_table_holds_texts_if_one_value_is_one_or_numbers_stand_beside_truths(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,c,d,e\n1,true,x,true,\n-.5e3,,2,1,\ninf,False,,,\n\n")
    assert check_table(tmp_path / "rows.csv") == {"a": False, "b": False, "c": True, "d": True, "e": False}


def test_a_line_is_counted_in_the_file_where_values_have_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('a,b\n"one\ntwo",2\n3\n')
    with pytest.raises(FileProblem, match=r"^line 4 has 1 values for 2 columns"):
        check_table(tmp_path / "rows.csv")


def test_the_suffix_of_a_compressed_file_says_what_is_inside() -> None:
    assert [suffix_of(Path(name)) for name in ("a.JSONL", "a.b.csv.gz", "a.gz", "a")] == [
        ".jsonl",
        ".csv.gz",
        ".gz",
        "",
    ]
