"""The page of layouts is current, and names each."""

from docs.make_layouts import PAGE, page
from hf_align.data.layouts.registry import LAYOUTS


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_layout_has_one_line_of_the_table() -> None:
    lines = [line.split(" | ") for line in page().splitlines() if line.startswith("| `")]
    assert [line[0].strip("|` ") for line in lines] == [layout.name for layout in LAYOUTS]
    assert {len(line) for line in lines} == {4}
