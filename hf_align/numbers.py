"""Validation of numbers from users: margins, weights, ratings, rewards; and counts and sizes in words."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeGuard, cast

LARGEST = 1e18
"""Largest accepted absolute value; its square still fits float32."""


def plural(count: int, noun: str) -> str:
    """Such as "1 row" or "2,000 rows"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def shown_size(count: float) -> str:
    """Bytes in GiB, MiB, KiB or as they are."""
    if 0 < count < 2**10:
        return f"{count:.0f} bytes"
    if count >= 2**30 / 10:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.0f} MiB" if count >= 10 * 2**20 or not count else f"{count / 2**10:.0f} KiB"


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is an int or a float, no boolean and not NaN, as options and JSON have them."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def number_problem(value: Any) -> str | None:
    """The reason why a value can't be trained on, worded to follow "a margin that is", or None."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return "not a number"
    if value != value or value in (math.inf, -math.inf):  # math.isfinite fails on large integers
        return "NaN or infinite"
    return f"beyond {LARGEST:g}, too large for float32" if abs(cast(Any, value)) > LARGEST else None
