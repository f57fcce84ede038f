"""Reading the pages: code blocks, shown output, links."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Language, title and text of each fenced block."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        language, info, text = match.groups()
        yield language, info.strip(), text


def prose(page: Path) -> str:
    """The page without fenced blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def run(page: Path) -> dict[str, Any]:
    """Run the page's Python blocks in order, except those with a title; compare their output.

    A `text` block after a Python block shows its output. Returns the names that the blocks defined.
    """
    names: dict[str, Any] = {}
    printed = ""
    for number, (language, info, text) in enumerate(blocks(page)):
        if language == "python" and not info:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, f"{page.name}, block {number}", "exec"), names)
            printed = out.getvalue()
        elif language == "text":
            assert printed == text, f"{page.name}, block {number} printed\n{printed}"
    return names
