"""Validation of numbers from users: margins, weights, ratings, rewards."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, cast

LARGEST = 1e18
"""Largest accepted absolute value; its square still fits float32."""


def number_problem(value: Any) -> str | None:
    """The reason why a value can't be trained on, worded to follow "a margin that is", or None."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return "not a number"
    if value != value or value in (math.inf, -math.inf):  # math.isfinite fails on large integers
        return "NaN or infinite"
    return f"beyond {LARGEST:g}, too large for float32" if abs(cast(Any, value)) > LARGEST else None
