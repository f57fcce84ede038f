"""One self-contained HTML page about a run: no scripts, no outside files, light and dark."""

from hf_align.report.page import render_report, write_text

__all__ = ["render_report", "write_text"]
