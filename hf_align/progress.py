"""Messages of a long run while it goes on: lines, bars, tables. The command line draws them; a library call may not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int, str], None]
"""Called with the number of units done and a short note such as the latest loss."""


class Progress(Protocol):
    """Receiver of a run's progress; `hf_align.cli.console.Screen` is one, `Silent` another."""

    def line(self, text: str, style: str = "") -> None:
        """Say one line, taken literally."""

    def task(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Show a bar for `total` units while the context lasts; what it yields moves the bar: `advance(done, note)`."""
        ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table whose first column is text and whose others are figures."""


class Silent:
    """Progress that nobody watches."""

    def line(self, text: str, style: str = "") -> None:
        """Say nothing."""

    def task(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Show nothing."""
        return nullcontext(lambda done, note="": None)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show nothing."""
