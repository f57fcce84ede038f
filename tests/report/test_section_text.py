"""Tables in a terminal."""

from __future__ import annotations

from hf_align.report.section_text import fitting, table_lines
from hf_align.report.sections import Table


def test_a_first_column_that_is_too_wide_is_cut_by_characters() -> None:
    name = "response_of_the_first_annotator_before_the_review"
    rows = [[name, "text", "0.0%"], ["short", "text", "0.0%"], ["two words that are too long to stand here", "x", "y"]]
    lines = list(table_lines(Table(("column", "type", "nulls"), rows), 40))
    assert lines[1:] == [
        f"    {name[:22]}…  text   0.0%",
        f"    {'short':<23}  text   0.0%",
        "    two words that are too…     x      y",
    ]


def test_last_columns_without_room_are_left_out_of_every_row() -> None:
    table = Table(("name", "gain", "seconds"), [["a", "+0.25 [0.1, 0.4]", "12"]], "clean")
    assert fitting(table, 35) == table  # 4 + 4 + 2 + 16 + 2 + 7 characters
    assert fitting(table, 34) == Table(("name", "gain"), [["a", "+0.25 [0.1, 0.4]"]], "clean")
    assert fitting(table, 5).columns == ("name", "gain")
