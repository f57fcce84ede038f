"""Preferences as users' functions return them."""

import numbers
from typing import Any

from hf_align.errors import UserError
from hf_align.feedback.records import FIRST, SECOND, TIE

WORDS = {"first": FIRST, "tie": TIE, "second": SECOND}
"""Preferences as a function may write them."""


def read_preference(value: Any) -> float | None:
    """A function's answer as a preference.

    Raises:
        UserError: It is neither a number from 0 to 1, one of `WORDS`, nor None.
    """
    if value is None:
        return None
    if isinstance(value, str) and value in WORDS:
        return WORDS[value]
    if isinstance(value, numbers.Real) and 0 <= float(value) <= 1:
        return float(value)
    raise UserError(f"it returned {value!r}; return a number from 0 to 1, 'first', 'second', 'tie' or None")
