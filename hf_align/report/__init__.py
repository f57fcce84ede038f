"""Pages and pictures about a run: self-contained HTML without scripts, in light and dark, and curves as PNG."""

from hf_align.report.quickstart import render_report

__all__ = ["render_report"]
