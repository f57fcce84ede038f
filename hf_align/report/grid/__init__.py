"""Results of a benchmark: tables, sentences, charts, the page and the picture, all from its summary."""

from hf_align.report.grid.page import benchmark_markdown, benchmark_text, render_benchmark
from hf_align.report.grid.picture import benchmark_png

__all__ = ["benchmark_markdown", "benchmark_png", "benchmark_text", "render_benchmark"]
