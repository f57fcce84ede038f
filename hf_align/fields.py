"""One check of config fields, from their type hints and the `range` in their metadata; the options page prints both."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import types
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hf_align.errors import UserError

RANGE = re.compile(r"([\[(])(-?[\d.]+|-inf), (-?[\d.]+|inf)([\])])")
"""An interval in mathematical notation: `[0, 1)` contains 0 but not 1."""


def check_fields(config: Any) -> None:
    """Refuse invalid values of our config fields.

    Args:
        config: A dataclass. Checks fields defined by classes of hf_align that have a `Literal` hint or
            `metadata["range"]`, an interval such as `"(0, inf)"`. None passes if the hint allows it.

    Raises:
        UserError: Names the field, its value and the valid values.

    Example:
        >>> import dataclasses
        >>> from hf_align.fields import check_fields
        >>> @dataclasses.dataclass
        ... class Config:
        ...     beta: float = dataclasses.field(default=0.1, metadata={"range": "(0, inf)"})
        >>> Config.__module__ = "hf_align.example"
        >>> check_fields(Config(beta=-1.0))
        Traceback (most recent call last):
        hf_align.errors.UserError: beta is -1.0; it must be above 0.
    """
    for field, hint in _our_fields(type(config)):
        if not _fits(getattr(config, field.name), hint, field):
            needed = allowed_values(field, hint) or str(field.type)
            raise UserError(f"{field.name} is {getattr(config, field.name)!r}; it must be {needed}.")


@cache
def _our_fields(cls: type[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Fields that classes of hf_align define, with their hints, of which a trainer's config takes milliseconds."""
    classes = [each for each in cls.__mro__ if each.__module__.startswith("hf_align")]
    ours = {name for each in classes for name in vars(each).get("__annotations__", {})}
    hints = get_type_hints(cls)
    return [(field, hints[field.name]) for field in dataclasses.fields(cls) if field.name in ours]


def allowed_values(field: dataclasses.Field[Any], hint: Any) -> str:
    """Allowed values of a field, in words: `'a' or 'b'`, `above 0 or None`; empty if all of its type are valid."""
    options = options_of(hint)
    choices = [repr(choice) for option in options for choice in get_args(option) if get_origin(option) is Literal]
    if choices and bool in options:
        choices = ["True", "False", *choices]
    words = [", ".join(choices[:-1]) + " or " + choices[-1] if len(choices) > 1 else "".join(choices)]
    if interval := field.metadata.get("range"):
        words = [_words(interval, whole=int in options)]
    if types.NoneType in options and words[0]:
        words.append("None")
    return " or ".join(words)


def options_of(hint: Any) -> tuple[Any, ...]:
    """List the types of a hint: the members of a union, or the hint itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def as_written(value: Any) -> Any:
    """An option's value as it is written: Trainer makes members of enums of some.

    Example:
        >>> from transformers import SchedulerType
        >>> from hf_align.fields import as_written
        >>> as_written(SchedulerType.COSINE), as_written("cosine"), as_written(0.1)
        ('cosine', 'cosine', 0.1)
    """
    return value.value if isinstance(value, enum.Enum) else value


def _fits(value: Any, hint: Any, field: dataclasses.Field[Any]) -> bool:
    options = options_of(hint)
    if value is None:
        return types.NoneType in options or Any in options
    if choices := [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]:
        return value in choices or (isinstance(value, bool) and bool in options)
    if (interval := field.metadata.get("range")) is None:
        return True
    if not isinstance(value, int if int in options else int | float) or isinstance(value, bool):
        return False
    opening, low, high, closing = _parts(interval)
    return (value > low if opening == "(" else value >= low) and (value < high if closing == ")" else value <= high)


def _parts(interval: str) -> tuple[str, float, float, str]:
    match = RANGE.fullmatch(interval)
    assert match is not None, f"{interval!r} is not an interval such as '[0, inf)'"
    return match[1], float(match[2]), float(match[3]), match[4]


def _words(interval: str, *, whole: bool) -> str:
    opening, low, high, closing = _parts(interval)
    low_words = f"above {low:g}" if opening == "(" else f"{low:g} or more"
    if whole:
        return f"a whole number of at least {low:g}"
    if math.isinf(high):
        return low_words
    if (opening, closing) == ("[", "]"):
        return f"between {low:g} and {high:g}"
    low_words = low_words if opening == "(" else f"at least {low:g}"
    return f"{low_words} and {'below' if closing == ')' else 'at most'} {high:g}"
