"""Rewards named in a recipe: a reward model, a Python function, or a weighted list of these."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_align.errors import UserError

WEIGHTED_KEYS = {"reward", "weight"}


def read_reward(value: Any, place: str = "reward") -> Any:
    """Turn a recipe's `reward` into an argument of `hf_align.rewards.as_reward`.

    Args:
        value: A reward model's folder or Hub id (returned unchanged), `FILE.py:FUNCTION`, `MODULE:FUNCTION` (imported
            here, also from the working directory), or a list of these or of mappings with `reward` and `weight`
            (default 1).
        place: Its place in the recipe or command line, for messages.

    Returns:
        A name or a function; for a list, (weight, name or function) pairs.

    Raises:
        UserError: It is none of these, a file, module or function doesn't exist, or an import fails.
    """
    if isinstance(value, str):
        return _read_one(value, place)
    if not isinstance(value, list) or not value:
        raise UserError(f"{place} expects a reward or a list of them, got {value!r}")
    return [_read_weighted(entry, f"{place}, entry {number}") for number, entry in enumerate(value, start=1)]


def _read_weighted(entry: Any, place: str) -> tuple[float, Any]:
    if isinstance(entry, str):
        return 1.0, _read_one(entry, place)
    if not isinstance(entry, dict) or not isinstance(entry.get("reward"), str) or not set(entry) <= WEIGHTED_KEYS:
        raise UserError(f"{place} expects {{reward: ..., weight: ...}}, got {entry!r}")
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise UserError(f"{place}: weight expects a number, got {weight!r}")
    return float(weight), _read_one(entry["reward"], place)


def _read_one(name: str, place: str) -> Any:
    _, colon, function = name.rpartition(":")
    if colon and function.isidentifier():
        return read_function(name, place)
    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise UserError(f"{place}: there is no folder {name}; name a reward model, FILE.py:FUNCTION or MODULE:FUNCTION")
    return name


def read_function(value: str, place: str) -> Callable[..., Any]:
    """Import a function that a recipe names.

    Args:
        value: `FILE.py:FUNCTION` or `MODULE:FUNCTION` (also from the working directory).
        place: Its place in the recipe or command line, for messages.

    Raises:
        UserError: It isn't of this form, a file, module or function doesn't exist, or an import fails.
    """
    source, colon, name = value.rpartition(":")
    if not colon or not name.isidentifier():
        raise UserError(f"{place} expects FILE.py:FUNCTION or MODULE:FUNCTION, got {value!r}")
    try:
        if source.endswith(".py"):
            module = _import_file(Path(source), place)
        else:
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))  # an installed command, unlike `python -m`, doesn't search there
            module = importlib.import_module(source)
    except UserError:
        raise
    except Exception as error:  # any error in the user's module
        raise UserError(f"{place}: {source} can't be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{place}: {source} has no function {name}")
    return function


def _import_file(path: Path, place: str) -> Any:
    if not os.path.isfile(path):
        raise UserError(f"{place}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"hf_align_reward_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look there
    spec.loader.exec_module(module)
    return module
