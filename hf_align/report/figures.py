"""How the figures of reports are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Metrics = Mapping[str, Any]


def percent(value: float | None, digits: int = 1) -> str:
    """`81.2%`; "undefined" without a value."""
    return "undefined" if absent(value) else f"{100 * _number(value):.{digits}f}%"


def decimal(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """`0.81`; "undefined" without a value."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return "undefined" if absent(value) else f"{round(_number(value), digits) + 0.0:{'+' if sign else ''}.{digits}f}"


def ends(interval: Sequence[float | None] | None, scale: float = 1.0, digits: int = 2) -> str:
    """`[0.79, 0.83]`; "" without an interval."""
    if interval is None or any(map(absent, interval)):
        return ""
    low, high = (round(scale * _number(end), digits) + 0.0 for end in interval)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def share(figures: Metrics, name: str) -> str:
    """A share with its interval, in percent."""
    return f"{percent(figures[name])} {ends(figures.get(f'{name}_interval'), 100, 1)}".rstrip()


def points(figures: Metrics, name: str) -> str:
    """A difference of shares with its interval, in percentage points."""
    if absent(figures[name]):
        return "undefined"
    return f"{decimal(100 * figures[name], 1, sign=True)} {ends(figures.get(f'{name}_interval'), 100, 1)}".rstrip()


def plain(figures: Metrics, name: str, digits: int = 2) -> str:
    """A figure with its interval."""
    return f"{decimal(figures[name], digits)} {ends(figures.get(f'{name}_interval'), 1, digits)}".rstrip()


def absent(value: float | None) -> bool:
    """Whether a figure is undefined: null in JSON, NaN in Python."""
    return value is None or math.isnan(value)


def _number(value: float | None) -> float:
    assert value is not None
    return value


def low_end(interval: Sequence[float | None] | None) -> float:
    """Lower end of an interval; -infinity without one, so that nothing is sure."""
    return -math.inf if interval is None or absent(interval[0]) else _number(interval[0])
