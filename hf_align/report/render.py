"""The Jinja environment of the report pages, and its number formats."""

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from hf_align.report.charts.figure import MINUS

DASH = "\N{EN DASH}"


def render_page(template: str, **context: Any) -> str:
    """Render a page.

    Args:
        template: File in `pages`.
        **context: The template's variables.

    Returns:
        HTML. Text from models and data sets is escaped.
    """
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    """Kept, with the templates that it has compiled."""
    environment = Environment(
        loader=PackageLoader("hf_align.report", "pages"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(signed=signed, fixed=fixed, duration=duration, interval=interval, verdict=verdict)
    environment.filters["minus"] = minus
    return environment


def minus(text: str) -> str:
    """Text with real minus signs before its numbers."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", MINUS, text)


def signed(value: float | None) -> str:
    """Format as `+0.12`, with a real minus sign."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return DASH if value is None else f"{round(value, 2) + 0.0:+.2f}".replace("-", MINUS)


def fixed(value: float | None, digits: int = 2) -> str:
    """Format as `0.12`, with a real minus sign; a dash if there is no value."""
    return DASH if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", MINUS)


def interval(ends: Sequence[float] | None, sign: bool = True) -> str:
    """Format as `[+0.10, +0.14]`, or without plus signs; empty if there is no interval."""
    show = signed if sign else fixed
    return "" if ends is None else f"[{show(ends[0])}, {show(ends[1])}]"


def verdict(ends: Sequence[float]) -> str:
    """Describe in words whether an interval of gains shows a change."""
    if ends[0] > 0:
        return "writes more positively"
    return "writes less positively" if ends[1] < 0 else "shows no clear change"


def duration(seconds: float) -> str:
    """Format as `8 s`, `3 min 5 s` or `1 h 2 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
