"""The code of a user's function, as a part of what its stored results were made by."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any


def code_digest(function: Callable[..., Any]) -> str:
    """Digest of a function's name and source file, or of its compiled code where there is no file.

    Another text of the file is another digest, so that results of an edited function aren't taken for its own. What
    the file imports and what the function closes over isn't seen.

    Args:
        function: A function, or any object that can be called.

    Example:
        >>> from hf_align.data.code import code_digest
        >>> functions = {}
        >>> exec("def f(x): return x", functions)
        >>> before = code_digest(functions["f"])
        >>> exec("def f(x): return x + 1", functions)
        >>> before == code_digest(functions["f"])
        False
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    name = f"{named.__module__}:{named.__qualname__}" if named.__module__ else str(named.__qualname__)
    try:
        file = inspect.getsourcefile(named)
        code = Path(file).read_bytes() if file is not None else b""
    except (OSError, TypeError):  # no file, as of a built-in function
        code = b""
    if not code and isinstance(compiled := getattr(named, "__code__", None), CodeType):
        code = _plain(compiled).encode()
    return hashlib.sha256(name.encode() + b"\0" + code).hexdigest()[:32]


def _plain(value: Any) -> str:
    """Compiled code as text that is the same in every process."""
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {value.co_varnames} [{', '.join(map(_plain, value.co_consts))}]"
    return f"{{{', '.join(sorted(map(repr, value)))}}}" if isinstance(value, frozenset) else repr(value)
