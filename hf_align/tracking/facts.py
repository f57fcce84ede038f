"""Facts of a run's process: versions, revision, command line and machine, without secrets or host names."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hf_align.version import versions

HIDDEN = "***"
_SECRET = re.compile(
    r"(?i)(?:^|[_.-])(?:api[_-]?key|(?:hub|api|access|auth|secret|bearer|hf)[_-]?token|secret(?:[_-]?key)?|password|"
    r"passwd|authorization)$|(?:^|\.)(?:token|key)$"
)
"""Names of options that hold secrets; not those of special tokens, such as eos_token."""
_IN_TEXT = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{20,})"  # tokens of known forms
    r"|(?<=://)[^/@\s]+(?=@)"  # a URL's user and password
    r"|(?i:(?<=key:)|(?<=key=)|(?<=token:)|(?<=token=)|(?<=password:)|(?<=password=)|(?<=secret:)|(?<=secret=))"
    r"\s*['\"]?[^\s,;}'\"]+"
)


def without_secrets(value: Any, name: str = "") -> Any:
    """JSON values without secrets: of options whose name says so, and of texts that look like one.

    Args:
        value: Mappings, lists, texts, numbers; anything else becomes its text.
        name: The option's name.

    Example:
        >>> from hf_align.tracking.facts import without_secrets
        >>> without_secrets({"hub_token": "abc", "eos_token": "<end>", "judge": {"api_key": "x", "model": "m"}})
        {'hub_token': '***', 'eos_token': '<end>', 'judge': {'api_key': '***', 'model': 'm'}}
    """
    if isinstance(value, Mapping):
        return {str(key): without_secrets(each, str(key)) for key, each in value.items()}
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET.search(name):
        return HIDDEN
    if isinstance(value, set | frozenset):
        return sorted((without_secrets(each) for each in value), key=str)
    if isinstance(value, list | tuple):
        return [without_secrets(each) for each in value]
    return _IN_TEXT.sub(HIDDEN, str(value))


def command_line(arguments: Sequence[str]) -> str:
    """A command line as one would type it, without secrets and without the program's folder.

    Example:
        >>> from hf_align.tracking.facts import command_line
        >>> command_line(["/usr/bin/hf-align", "dpo", "--hub_token", "abc", "--api_key=x", "--beta", "0.2"])
        "hf-align dpo --hub_token '***' '--api_key=***' --beta 0.2"
    """
    shown, hide_next = [Path(arguments[0]).name] if arguments else [], False
    for argument in arguments[1:]:
        name, equals, _ = argument.partition("=")
        is_secret = name.startswith("-") and bool(_SECRET.search(name.lstrip("-")))
        if hide_next:
            shown.append(HIDDEN)
        elif is_secret and equals:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_IN_TEXT.sub(HIDDEN, argument))
        hide_next = is_secret and not equals
    return shlex.join(shown)


@cache
def git_revision(folder: str | None) -> str | None:
    """The revision of a folder, "-dirty" where tracked files were changed; None without git or folder."""
    if folder is None:
        return None
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() or None


@cache
def _libraries() -> dict[str, str]:
    return versions()


def surroundings() -> dict[str, Any]:
    """Versions of libraries, git revision of the working folder, command line and machine of this process."""
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        folder = None
    return {
        "versions": _libraries(),
        "git": git_revision(folder),
        "command": command_line(sys.argv),
        "host": {
            "system": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }
