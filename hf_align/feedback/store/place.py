"""Where a store is: a file, or a database's URL."""

from __future__ import annotations

from pathlib import Path

from hf_align.errors import UserError
from hf_align.feedback.store.store import PreferenceStore


def open_store(place: str | Path, *, make: bool = False) -> PreferenceStore:
    """Open the store of a file or URL.

    Args:
        place: SQLite file, such as prefs.db, or any URL that SQLAlchemy takes.
        make: Make the file if there is none.

    Raises:
        UserError: There is no such file, or the database can't be opened.

    Example:
        >>> from hf_align.feedback.store import open_store
        >>> open_store("sqlite://").url
        'sqlite://'
    """
    if "://" in str(place):
        return PreferenceStore(str(place))
    path = Path(place)
    if not make and not path.is_file():
        raise UserError(f"there is no store {path}; hf-align collect makes one")
    return PreferenceStore(f"sqlite:///{path}")
