"""Tables; broken ones are in tests/cli/test_convert.py."""

from pathlib import Path

import pytest

from hf_align.data.csv_files import how_to_read, table_kinds, table_rows
from hf_align.data.row_files import FileProblem


def rows_of(path: Path, text: str) -> list[dict[str, object]]:
    path.write_bytes(text.encode())
    return list(table_rows(path, path.suffix, how_to_read([table_kinds(path, path.suffix)])))


@pytest.mark.parametrize(
    "table",
    ["a,b\n1,2\n", "a\n1\n", '"a","b"\n"x, ""y""\nz",2\n', "a,b\r\n1,2\r\n\r\n", "\ufeffa,b\n1,\n"],
)
def test_whole_tables_are_not_refused(table: str, tmp_path: Path) -> None:
    assert list(rows_of(tmp_path / "rows.csv", table)[0]) in (["a"], ["a", "b"])


def test_a_column_holds_numbers_or_truths_if_all_its_cells_do(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "rows.csv", "a,b,c,d,e,f\n1,true,x,true,,4\n-.5e3,,2,1,,-7\ninf,False,,,,\n\n") == [
        {"a": 1.0, "b": True, "c": "x", "d": "true", "e": None, "f": 4},
        {"a": -500.0, "b": None, "c": "2", "d": "1", "e": None, "f": -7},
        {"a": float("inf"), "b": False, "c": None, "d": None, "e": None, "f": None},
    ]


TEXTS = (
    "007",
    "+49",
    "00.5",
    "NA",
    "null",
    "None",
    "nan",
    "2024-01-31",
    "123456789012345678901",
    "1_000",
    "0x1F",
    "\u0664",
)


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_number_would_lose_stays_a_text(text: str, tmp_path: Path) -> None:
    assert [row["id"] for row in rows_of(tmp_path / "rows.csv", f"id,chosen\n1,2\n{text},True\n")] == ["1", text]


def test_prompts_and_responses_are_texts_and_ratings_are_numbers_row_by_row(tmp_path: Path) -> None:
    table = "prompt,chosen,rejected,margin\nTrue,1.0,None,2\n7,null,,0.50\n 8 ,x,1e3,n/a\n"
    assert rows_of(tmp_path / "rows.csv", table) == [
        {"prompt": "True", "chosen": "1.0", "rejected": "None", "margin": 2},
        {"prompt": "7", "chosen": "null", "rejected": None, "margin": 0.5},
        {"prompt": " 8 ", "chosen": "x", "rejected": "1e3", "margin": "n/a"},
    ]


def test_a_line_is_counted_in_the_file_where_values_have_line_breaks(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=r"^line 4 has 1 values for 2 columns"):
        rows_of(tmp_path / "rows.csv", 'a,b\n"one\ntwo",2\n3\n')
