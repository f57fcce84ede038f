"""Results that show themselves: in a terminal, in a notebook, as one page and as JSON."""

from __future__ import annotations

import html
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.files import write_json, write_text
from hf_align.printable import printable

NARROWEST, WIDEST = 80, 120
"""Characters of a line of `str(result)`, between which the terminal's width counts."""
SUFFIXES = (".html", ".json")


class Shown(ABC):
    """A result that is saved as a page or as figures; `str` of it is for a terminal, a notebook shows the page."""

    @abstractmethod
    def to_html(self) -> str:
        """The page; texts of the data are escaped."""

    @abstractmethod
    def to_text(self, width: int) -> str:
        """The text for a terminal of this width."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it, with null for what is undefined."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained page (.html) or all figures (.json); the file appears whole or not at all.

        Raises:
            UserError: Another suffix.
        """
        check_suffix(path)
        if Path(path).suffix.lower() == ".json":
            write_json(path, self.to_json())
        else:
            write_text(path, self.to_html())

    def _repr_html_(self) -> str:
        # A frame, since the page's styles would otherwise change the notebook.
        page = html.escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 900px; border: 0" title="Report"></iframe>'

    def __str__(self) -> str:
        return printable(self.to_text(min(max(shutil.get_terminal_size((100, 24)).columns, NARROWEST), WIDEST)))


def check_suffix(path: str | os.PathLike[str], name: str = "path", suffixes: Sequence[str] = SUFFIXES) -> None:
    """Refuse a file of another format than these.

    Raises:
        UserError: Names it.
    """
    if Path(path).suffix.lower() not in suffixes:
        raise UserError(f"{name} is {path}; a report is saved as {' or '.join(suffixes)}.")
