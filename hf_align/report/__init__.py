"""One self-contained HTML page about a run: no scripts, no outside files, light and dark."""

from hf_align.files import write_text
from hf_align.report.quickstart import render_report

__all__ = ["render_report", "write_text"]
