"""Checks of values before they are stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from hf_align.errors import UserError
from hf_align.feedback.store.schema import LONGEST_ID, LONGEST_NAME


def check_share(name: str, value: Any, *, optional: bool = True) -> float | None:
    """A number from 0 to 1 as a float; None stays None.

    Raises:
        UserError: It is another number, NaN, a bool or no number.
    """
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise UserError(f"{name} is {value!r}; give a number from 0 to 1")
    return float(value)


def check_number(name: str, value: Any, *, above: float = -math.inf, at_least: float = -math.inf) -> float:
    """A finite number as a float.

    Raises:
        UserError: It isn't one, or too small.
    """
    real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value <= above or value < at_least:
        least = f" above {above:g}" if above > -math.inf else f" of at least {at_least:g}" * (at_least > -math.inf)
        raise UserError(f"{name} is {value!r}; give a finite number{least}")
    return float(value)


def check_wanted(value: Any) -> int:
    """Number of answers wanted; 0 for a task that is given to nobody.

    Raises:
        UserError: It is no whole number from 0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"wanted is {value!r}; give a whole number of answers")
    return value


def check_id(name: str, value: Any) -> str:
    """An id: text of 1 to 64 characters.

    Raises:
        UserError: It isn't.
    """
    return _check_length(name, value, LONGEST_ID)


def check_name(name: str, value: Any) -> str:
    """A name: text of 1 to 255 characters.

    Raises:
        UserError: It isn't.
    """
    return _check_length(name, value, LONGEST_NAME)


def _check_length(name: str, value: Any, longest: int) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise UserError(f"{name} is {str(value)[:80]!r}; give text of 1 to {longest} characters")
    return str(check_text(name, value))


def check_text(name: str, value: Any) -> str | None:
    """Text that databases can hold; None stays None.

    Raises:
        UserError: It is no text, or has characters that can't be written.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise UserError(f"{name} is {value!r}; give text")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{name} has a character that can't be stored: a zero byte or half of a surrogate pair")
    return value


def check_json(name: str, value: Any) -> Any:
    """A value that JSON can hold.

    Raises:
        UserError: It can't; numbers that aren't finite and halves of surrogate pairs can't, either.
    """
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name} can't be stored ({error}); give text, finite numbers, booleans, None, and lists and dicts of these"
        ) from None
    return value


def check_answer(
    id: str, preference: float | None, confidence: float | None, reason: str | None, details: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What somebody answered, as it is stored; values as for `PreferenceStore.answer`.

    Raises:
        UserError: One is out of range or can't be stored.
    """
    check_id("id", id)
    return {
        "preference": check_share("preference", preference),
        "confidence": check_share("confidence", confidence),
        "reason": check_text("reason", reason),
        "details": check_json("details", dict(details or {})),
    }
