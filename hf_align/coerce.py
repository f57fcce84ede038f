"""Conversion of values from YAML and flags to a dataclass field's type."""

import dataclasses
import enum
import types
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from hf_align.fields import options_of


def coerce(value: Any, hint: Any) -> Any:
    """Convert `value` to the type `hint`, only where nothing can be lost.

    An integer is accepted as a float and a number as a string; nothing else is converted (a string isn't a number, and
    1 isn't true).

    Args:
        value: A YAML value: None, bool, int, float, str, list or dict.
        hint: A resolved type hint, such as `float`, `str | None`, `list[str]`, `tuple[float, ...]` (for which a list is
            taken) or `Literal["a", "b"]`. A `Callable` among its options can only be set from Python.

    Raises:
        TypeError: The value doesn't fit; the message describes the expected type, such as "a number or null".
    """
    options = options_of(hint)
    for option in options:
        if _fits(value, option):
            if isinstance(value, list):
                items = [coerce(item, _item(option)) for item in value]
                return tuple(items) if get_origin(option) is tuple else items
            return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if float in options and is_number:
        return float(value)
    if str in options and is_number:
        return str(value)
    raise TypeError(" or ".join(dict.fromkeys(_describe(option) for option in options if option is not Callable)))


def _item(hint: Any) -> Any:
    return (get_args(hint) or (Any,))[0]


def _fits(value: Any, option: Any) -> bool:
    origin = get_origin(option) or option
    if option is Any:
        return True
    if origin is Literal:
        return value in get_args(option)
    if not isinstance(origin, type):
        return False
    if origin in (list, tuple):
        return isinstance(value, list) and all(_fits_any(item, _item(option)) for item in value)
    return value in [each.value for each in origin] if issubclass(origin, enum.Enum) else type(value) is origin


def _fits_any(value: Any, hint: Any) -> bool:
    try:
        coerce(value, hint)
    except TypeError:
        return False
    return True


def _describe(option: Any) -> str:
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        dict: "a mapping",
        types.NoneType: "null",
        Any: "anything",
    }
    origin = get_origin(option) or option
    if origin in words:
        return words[origin]
    if origin is Literal:
        return " or ".join(repr(choice) for choice in get_args(option))
    if origin in (list, tuple):
        items = [_describe(item) for item in options_of(_item(option)) if item is not Callable]
        return f"a list (of {' or '.join(items)})"
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return " or ".join(str(member.value) for member in origin)
    return "a value that can only be set from Python" if dataclasses.is_dataclass(origin) else str(option)
