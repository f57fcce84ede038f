"""Connections to the database of a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from hf_align.errors import UserError

BUSY_SECONDS = 60
"""How long a writer waits for another one."""


def open_engine(url: str) -> Engine:
    """Engine for a SQLAlchemy URL; SQLite gets a write-ahead log, foreign keys and full synchronisation.

    A writing transaction on SQLite takes the write lock at its start, so that what it reads stays true until its end.

    Raises:
        UserError: The URL can't be read or its driver isn't installed.
    """
    try:
        parsed = make_url(url)
        memory = parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:")
        engine = create_engine(parsed, **({"poolclass": StaticPool} if memory else {}))
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(f"store {url!r} is not a database URL, such as sqlite:///prefs.db: {error}") from None
    except ModuleNotFoundError as error:
        raise UserError(f"store {url!r} needs the package {error.name}: pip install {error.name}") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Transaction that writes: all of it or nothing is kept."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Transaction that only reads, one state of the database throughout."""
    with engine.connect() as connection, connection.begin():
        yield connection
