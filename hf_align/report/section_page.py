"""The parts that reports share as a page: bars with intervals, and texts of a bounded length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from markupsafe import Markup

from hf_align.report.charts.intervals import Interval
from hf_align.report.figures import Metrics
from hf_align.report.sections import Section

GRADES = "Good, fair and bad compare each section with fixed bounds: they say where to look, the figures say how much."
"""What a report's method begins with."""
LONGEST = 1200
"""Characters of a text shown; the JSON has all of it."""


def bar(label: str, figures: Metrics, name: str, color: str, scale: float = 100) -> Interval:
    """A figure with its interval, both times `scale`."""
    interval = figures.get(f"{name}_interval")
    has_ends = interval is not None and not any(end is None or math.isnan(end) for end in interval)
    ends = [scale * end for end in interval] if has_ends and interval is not None else None
    return Interval(label, color, scale * figures[name], ends)


def charts_of(
    sections: Iterable[Section], metrics: Metrics, draw: Mapping[str, Callable[..., list[Markup]]], *more: Any
) -> dict[str, list[Markup]]:
    """Charts of the sections that aren't empty, by their keys; none of those that nothing draws.

    Args:
        sections: The report's sections.
        metrics: Its metrics, by key.
        draw: Draws a section's figures, by key.
        more: What these get besides.
    """
    return {
        section.key: draw[section.key](metrics[section.key], *more) if section.key in draw else []
        for section in sections
        if not section.empty
    }


def known(value: float | None) -> bool:
    """Whether there is a number to draw."""
    return value is not None and not math.isnan(value)


def shortened(text: str) -> str:
    """A text, cut after `LONGEST` characters, with how many are left."""
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]}… ({left:,} more characters)"
