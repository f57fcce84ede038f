"""Write docs/reference/layouts.md from the known layouts (`make docs`); a test checks that the page is current."""

from pathlib import Path

from hf_align.data.layouts.layout import Layout
from hf_align.data.layouts.registry import LAYOUTS

PAGE = Path(__file__).parent / "reference" / "layouts.md"
SHOWN = 3
INTRODUCTION = """\
# Layouts of preference data

<!-- Written by `make docs` from `LAYOUTS` in hf_align/data/layouts/registry.py. -->

What [`hf-align convert`](../how-to/convert.md) and `hf_align.data.to_preferences` recognise, in the order in which it
is tried: the first layout whose columns are there, and whose values have the right types in at least half of the first
20 rows (of exports, in one of them), is taken. Of columns with "or", a data set has one. `--layout NAME` chooses one by
hand.

"""


def page() -> str:
    """Write the page: one table."""
    lines = ["| name | known from | columns | becomes |", "| --- | --- | --- | --- |", *map(_line, LAYOUTS)]
    return INTRODUCTION + "\n".join(lines) + "\n"


def _line(layout: Layout) -> str:
    columns = ", ".join(map(_column, layout.columns)) + (" (case, spaces and punctuation don't matter)" * layout.loose)
    return f"| `{layout.name}` | {layout.source} | {columns} | {'unchanged' if layout.unchanged else layout.makes} |"


def _column(names: str) -> str:
    shown = [f"`{name}`" for name in names.split("|")]
    return " or ".join(shown[:SHOWN]) + (" or the like" if len(shown) > SHOWN else "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}")
