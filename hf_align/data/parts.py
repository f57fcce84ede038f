"""Finished parts of a long job in a folder, so that a killed job goes on where it stood.

A part is stored under a digest of everything that determines it (model, settings, inputs). So one that was made from
anything else is never found, and any part that is found is what the job would compute again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_align.files import write_text

PENDING = "together"
"""File with parts that are being stored together."""


class Parts:
    """The finished parts of one job.

    Args:
        folder: Where parts are kept; None: nowhere, for jobs that aren't resumed.

    Attributes:
        found: Number of parts that were there already.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.found = 0
        pending = None if self.folder is None else self.folder / PENDING
        if pending is not None and pending.exists():
            for key, part in json.loads(pending.read_text(encoding="utf-8")):
                self.put(key, part)
            pending.unlink()

    def get(self, key: Any, compute: Callable[[], Any]) -> Any:
        """The part for `key`: stored earlier, or computed and stored.

        Args:
            key: What determines the part, as JSON can write it.
            compute: Makes the part, which JSON can write; its floats come back bitwise.
        """
        part = self.find(key)
        if part is None:
            part = compute()
            self.put(key, part)
        return part

    def find(self, key: Any) -> Any:
        """The stored part for `key`, or None."""
        file = self._file(key)
        if file is None or not file.exists():
            return None
        self.found += 1
        return json.loads(file.read_text(encoding="utf-8"))

    def put(self, key: Any, part: Any) -> None:
        """Store a part, which isn't None."""
        if (file := self._file(key)) is not None:
            write_text(file, json.dumps(part, ensure_ascii=False))

    def put_together(self, parts: Sequence[tuple[Any, Any]]) -> None:
        """Store parts that were made together: a job killed meanwhile finds all of them, or none.

        Args:
            parts: Keys with their parts.
        """
        if self.folder is None:
            return
        write_text(self.folder / PENDING, json.dumps(parts, ensure_ascii=False))
        for key, part in parts:
            self.put(key, part)
        (self.folder / PENDING).unlink()

    def _file(self, key: Any) -> Path | None:
        return None if self.folder is None else self.folder / f"{digest(key)}.json"


def digest(content: Any) -> str:
    """Digest of what JSON can write."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
