"""Hints for errors: the flag or recipe line at fault, and the flag that was meant.

Nothing heavy is imported here.
"""

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hf_align.errors import LoadError, UserError
from hf_align.experiments.recipe import read_recipe


def nearest_flag(flag: str, flags: Iterable[str]) -> str | None:
    """The nearest existing flag; dashes and underscores count as equal."""
    by_spelling = {name.replace("_", "-"): name for name in flags if name.startswith("--")}
    nearest = difflib.get_close_matches(flag.replace("_", "-"), by_spelling, n=1, cutoff=0.7)
    return by_spelling[nearest[0]] if nearest else None


def with_place(error: UserError, options: argparse.Namespace | None) -> str:
    """An error's message, preceded by the flag or recipe line at fault, if any.

    Args:
        error: The command's error. A `LoadError` concerns the option that holds its `source`; any other error the
            option that its message begins with, as in "beta is -1".
        options: The parsed arguments, or None if parsing failed.
    """
    message = str(error)
    if options is None:
        return message
    if not options.takes_fields:
        message = _with_flags(message, vars(options))
    values, places = _written(options)
    if isinstance(error, LoadError):
        flag = _flag_before(error.source, options.arguments)
        key = next((key for key, value in values.items() if _holds(value, error.source)), None)
        place = flag or (None if key is None else places[key])
        return message if place is None else f"{place}: {message}"
    first = re.match(r"[\w.]*", message)
    assert first is not None
    return f"{places[first[0]]}{message[first.end() :]}" if first[0] in places else message


def _with_flags(message: str, names: Iterable[str]) -> str:
    """A message with a command's flags where it names arguments of a function, as in `output=NAME`.

    What stands behind "in Python" stays.
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        return f"--{name.replace('_', '-')}{'' if value == 'True' else f' {value}'}" if name in names else found[0]

    return re.sub(r"(?<!in Python )\b([a-z_]+)=(\w+)", flag, message)


def _written(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and places of the command's recipe, if it has a readable one, or else the places of its flags."""
    if not options.takes_fields:
        return {}, {name: f"--{name.replace('_', '-')}" for name in vars(options)}
    try:
        recipe = read_recipe(options.config, options.fields)
    except UserError:  # this is the error being reported
        return {}, {}
    return recipe.values, recipe.places


def _flag_before(value: str, arguments: Sequence[str]) -> str | None:
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, attached = word.partition("=")
        if flag.startswith("--") and (attached if equals else after) == value:
            return flag
    return None


def _holds(value: Any, wanted: str) -> bool:
    if isinstance(value, dict | list):
        return any(_holds(part, wanted) for part in (value.values() if isinstance(value, dict) else value))
    return value == wanted
