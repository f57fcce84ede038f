"""Where a store is: a file, or a database's URL."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import URL

from hf_align.errors import UserError
from hf_align.feedback.store.connection import open_engine
from hf_align.feedback.store.store import PreferenceStore


def open_store(place: str | os.PathLike[str], *, make: bool = False) -> PreferenceStore:
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
    url = url_of(place)
    if not make and (path := missing_file(place)) is not None:
        raise UserError(f"there is no store {path}; hf-align collect makes one")
    return PreferenceStore(url)


def url_of(place: str | os.PathLike[str]) -> str:
    """The URL of a file, or the URL that is given.

    Raises:
        UserError: The file's name is no text, which a URL is.
    """
    try:
        return str(place) if "://" in str(place) else str(URL.create("sqlite", database=str(place)))
    except UnicodeEncodeError:
        raise UserError(f"store {str(place)!r} has bytes in its name that are no text; rename it") from None


def missing_file(place: str | os.PathLike[str]) -> Path | None:
    """The SQLite file of a store that isn't there yet; None if it is, or of another database.

    Raises:
        UserError: It can't be there: its folder is missing, or the URL is none.
    """
    engine = open_engine(url_of(place))  # connects to nothing yet
    engine.dispose()
    database = engine.url.database or ":memory:"
    if engine.dialect.name != "sqlite" or ":memory:" in database:
        return None
    path = Path(database.removeprefix("file:"))
    return None if path.is_file() else path
