"""Lazy imports of a package's names, so that importing the package is cheap."""

from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Iterable[str]], submodules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: The package's name.
        homes: Names by the submodule that defines them.
        submodules: Submodules that are available as attributes, too.

    Returns:
        The two functions, to assign in the package's `__init__`.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        if name in submodules:
            return import_module(f"{package}.{name}")  # the import system sets the attribute
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted({*home, *submodules, *vars(import_module(package))})
