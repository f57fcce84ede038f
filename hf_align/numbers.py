"""Numbers that people give: margins, weights, ratings, rewards."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

LARGEST = 1e18
"""Largest number, of either sign, that is taken: its square is still a float32."""


def number_problem(value: Any) -> str | None:
    """Say what keeps a value from being a number to train on, worded to follow "a margin that is"; None: nothing."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return "not a number"
    if value != value or value in (math.inf, -math.inf):  # math.isfinite fails on large integers
        return "NaN or infinite"
    return f"beyond {LARGEST:g}, too large for float32" if abs(value) > LARGEST else None
