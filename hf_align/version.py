"""Versions of this package and of the libraries that determine a run's results."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"
LIBRARIES = ("hf-align", "transformers", "peft", "torch", "trl", "datasets", "accelerate", "bitsandbytes")


@cache  # reads and parses the package's metadata; cards, reports and keys of caches ask for eight of them
def installed_version(name: str) -> str | None:
    """The version of a package, or None if it isn't installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Python's version and those of the packages that are installed, by name."""
    return {
        "Python": platform.python_version(),
        **{name: number for name in names if (number := installed_version(name))},
    }
