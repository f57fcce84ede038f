"""Where a store is: a file, or a database's URL."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url

from hf_align.errors import UserError
from hf_align.feedback.store.store import PreferenceStore


def open_store(place: str | Path, *, make: bool = False) -> PreferenceStore:
    """Open the store of a file or URL.

    Args:
        place: SQLite file, such as prefs.db, or any URL that SQLAlchemy takes.
        make: Make a SQLite file if there is none.

    Raises:
        UserError: There is no such file, or the database can't be opened.

    Example:
        >>> from hf_align.feedback.store import open_store
        >>> open_store("sqlite://").url
        'sqlite://'
    """
    url = str(place) if "://" in str(place) else str(URL.create("sqlite", database=str(place)))
    if url.startswith("sqlite:///") and not make:
        path = make_url(url).database or ":memory:"
        if ":memory:" not in path and not Path(path.removeprefix("file:")).is_file():
            raise UserError(f"there is no store {path}; hf-align collect makes one")
    return PreferenceStore(url)
