"""Progress of a long run: lines, bars, tables. The command line shows it; library calls are silent by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int, str], None]
"""Function called with the number of units done and a short note such as the latest loss."""


class Progress(Protocol):
    """Receiver of a run's progress; `hf_align.cli.console.Screen` is one, `Silent` another."""

    def line(self, text: str, style: str = "") -> None:
        """Print one line, without markup."""

    def task(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Show a bar for `total` units inside the context, which yields `advance(done, note)` to move it."""
        ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table of one text column followed by columns of figures."""


class Silent:
    """Progress that is not shown."""

    def line(self, text: str, style: str = "") -> None:
        """Say nothing."""

    def task(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Show nothing."""
        return nullcontext(lambda done, note="": None)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show nothing."""
