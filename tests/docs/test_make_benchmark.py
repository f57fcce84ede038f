"""The benchmark's page shows the figures that are committed."""

import json

from docs.make_benchmark import BLOCK, FIGURES, PAGE, filled
from hf_align.report.grid.page import benchmark_markdown


def test_the_committed_tables_are_those_of_the_committed_figures() -> None:
    figures = json.loads((FIGURES / "benchmark.json").read_text(encoding="utf-8"))
    markdown = benchmark_markdown(figures["summary"])
    page = PAGE.read_text(encoding="utf-8")
    assert (FIGURES / "table.md").read_text(encoding="utf-8") == markdown
    assert len(BLOCK.findall(page)) >= 5
    assert filled(page, markdown) == page, "run: python docs/make_benchmark.py"
