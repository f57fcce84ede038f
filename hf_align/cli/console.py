"""Output of commands: progress bars on a terminal, plain lines elsewhere, no library noise."""

import json
import logging
import os
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hf_align.errors import UserError
from hf_align.files import write_json
from hf_align.printable import printable
from hf_align.progress import Advance

NARROWEST = 24
"""Fewest characters of a line that a text is wrapped to."""


class Screen:
    """Standard output of a command; everything is printed through it so that bars and lines don't collide.

    Args:
        stderr: Print to standard error, for commands whose standard output is read by programs.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self.console = Console(
            highlight=False,
            markup=False,  # names in brackets and between colons are names
            emoji=False,
            soft_wrap=True,
            quiet=os.environ.get("RANK", "0") != "0",  # under `accelerate launch` only the first process prints
            stderr=stderr,
        )

    def line(self, text: str, style: str = "") -> None:
        """Print one line, without markup."""
        self.console.print(Text(printable(text), style=style))

    def field(self, name: str, text: str, width: int) -> None:
        """Print a name and a text from column `width` on; on a terminal a long one goes on below its beginning.

        Args:
            name: What the text is.
            text: The text.
            width: Characters for the name. Names without room push their text to the right.
        """
        lines = [text]
        if self.console.is_terminal and (room := self.console.width - width) >= NARROWEST:
            further = " " * max(0, len(name) - width)
            wrapped = textwrap.wrap(text, room, initial_indent=further, break_long_words=False, break_on_hyphens=False)
            lines = [line.removeprefix(further) if not place else line for place, line in enumerate(wrapped)] or [text]
        self.line(f"{name:<{width}}{lines[0]}")
        for line in lines[1:]:
            self.line(f"{'':<{width}}{line}")

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Show a bar for work of more than two seconds; off a terminal show nothing.

        Args:
            label: Description of the work.
            total: Number of units.

        Yields:
            A function that moves the bar: `advance(done, note)`.
        """
        if not self.console.is_terminal:
            yield lambda done, note="": None
            return
        columns = (
            TextColumn("   {task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(printable(label), total=total, note="")
            yield lambda done, note="": progress.update(bar, completed=done, note=printable(note))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table of one text column followed by columns of figures."""
        table = Table(
            title=printable(title), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2)
        )
        for position, column in enumerate(columns):
            table.add_column(printable(column), justify="left" if position == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*map(printable, row))
        # Never truncate a figure: on a narrow screen lines wrap.
        unlimited = self.console.options.update(width=10_000)
        table.width = self.console.measure(table, options=unlimited).maximum
        self.console.print(table)


class _ScreenHandler(logging.Handler):
    """Handler that prints each log record as one line, above a running progress bar."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self.screen.line(f"   {record.levelname.lower()}: {record.getMessage()}", "yellow")


def print_json(figures: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Print a command's figures to standard output, for programs; `default` is that of `json.dumps`."""
    print(printable(json.dumps(figures, indent=2, ensure_ascii=False, default=default)))


def write_figures(figures: Mapping[str, Any], file: str, screen: Screen) -> None:
    """Write a command's figures to the file that `--json` names.

    Raises:
        UserError: It can't be written.
    """
    try:
        write_json(file, figures)
    except OSError as error:
        raise UserError(f"--json: {file} can't be written: {error.strerror or error}") from None
    screen.line(f"figures: {file}")


@contextmanager
def quiet_libraries(screen: Screen) -> Iterator[None]:
    """Hide output that users can't act on, and show warnings of hf_align and TRL as one line each.

    Silenced: transformers' and datasets' progress bars and log lines below errors, the Hub's download bars off
    a terminal, and Python warnings raised outside hf_align.

    Args:
        screen: Receives those warnings.
    """
    import datasets
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    ours = logging.getLogger("hf_align")
    handler = _ScreenHandler(screen)
    propagate, verbosity = ours.propagate, transformers_logging.get_verbosity()
    verbosity_of_datasets = datasets.logging.get_verbosity()
    ours.addHandler(handler)
    ours.propagate = False
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    # Downloads from the Hub are slow: keep their bars on a terminal.
    (enable_progress_bars if screen.console.is_terminal else disable_progress_bars)()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"hf_align")
            yield
    finally:
        ours.removeHandler(handler)
        ours.propagate = propagate
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
        datasets.logging.set_verbosity(verbosity_of_datasets)
        datasets.enable_progress_bars()
