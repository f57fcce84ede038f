"""Write the tables of docs/results/benchmark.md and table.md from a benchmark: `python docs/make_benchmark.py`.

The figures are the benchmark.json that `hf-align benchmark` wrote. A table stands on the page between
`<!-- TITLE: docs/make_benchmark.py -->` and `<!-- end -->`.
"""

import json
import re
from pathlib import Path

from hf_align.report.grid.page import benchmark_markdown

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results" / "benchmark.md"
FIGURES = ROOT / "benchmarks" / "results" / "benchmark" / "h200"
BLOCK = re.compile(r"(<!-- ([^\n]+): docs/make_benchmark\.py -->\n).*?(<!-- end -->)", re.DOTALL)


def tables(markdown: str) -> dict[str, str]:
    """Tables by their title."""
    sections = (part.partition("\n\n") for part in markdown.split("### ")[1:])
    return {title: body.partition("\n\n")[0].strip() for title, _, body in sections}


def filled(page: str, markdown: str) -> str:
    """The page with the tables that its marks name."""
    found = tables(markdown)
    return BLOCK.sub(lambda block: f"{block[1]}\n{found[block[2]]}\n\n{block[3]}", page)


def main() -> None:
    """Run the script."""
    summary = json.loads((FIGURES / "benchmark.json").read_text(encoding="utf-8"))["summary"]
    markdown = benchmark_markdown(summary)
    (FIGURES / "table.md").write_text(markdown, encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), markdown), encoding="utf-8")


if __name__ == "__main__":
    main()
