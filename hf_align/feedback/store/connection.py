"""Connections to the database of a store: one writer at a time, and its errors in words.

On SQLite a writing transaction takes the database's write lock at its start; elsewhere it locks the row that holds the
store's version. So what a transaction reads stays true until its end, and two of them never conflict: a task isn't
given to more people than wanted, and an answer isn't taken twice, by however many processes.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError, TimeoutError
from sqlalchemy.pool import QueuePool

from hf_align.errors import UserError
from hf_align.feedback.store.schema import meta

BUSY_SECONDS = 60.0
"""How long a writer waits for another one. On SQLite a URL may say otherwise: sqlite:///prefs.db?timeout=5."""
CACHE = 64 * 1024
"""KiB of an SQLite file that a connection keeps in memory at most; with SQLite's 2 MB, a store of 100,000 answers is
read from the file again in every call."""
WRITER = select(meta.c.value).where(meta.c.key == "version").with_for_update()
"""Lock of a database other than SQLite that a writing transaction takes first."""


def open_engine(url: str) -> Engine:
    """Engine for a SQLAlchemy URL; SQLite checks foreign keys and flushes every transaction to the disk.

    Raises:
        UserError: The URL can't be read, its driver isn't installed, its folder is missing, or the database has no
            locks.
    """
    parsed: URL | None = None
    try:
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        options = _sqlite_options(parsed) if sqlite else _server_options()
        engine = create_engine(parsed, json_deserializer=_read_json, **options)
    except (ArgumentError, NoSuchModuleError) as error:
        hidden = re.sub(r"//[^@/]*@", "//***@", url)  # a password isn't shown
        raise UserError(f"store {hidden!r} is not a database URL, such as sqlite:///prefs.db: {error}") from None
    except ModuleNotFoundError as error:
        raise UserError(f"store {parsed} needs the package {error.name}: pip install {error.name}") from None
    if sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif "FOR UPDATE" not in str(WRITER.compile(engine)):
        raise UserError(f"store {name_of(engine)}: {engine.dialect.name} doesn't lock rows; use SQLite or PostgreSQL")
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "connect", _set_up_postgresql)
    return engine


def name_of(engine: Engine) -> str:
    """URL for messages, without the password."""
    return engine.url.render_as_string()


def _read_json(text: str) -> Any:
    """Value of JSON; most fields that may hold anything hold nothing, and reading that takes a third of all reading."""
    return {} if text == "{}" else json.loads(text)


def _sqlite_options(url: URL) -> dict[str, Any]:
    database = url.database or ":memory:"
    if ":memory:" in database:
        # One connection, for which threads queue: a second one would be another database.
        return {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "connect_args": {"check_same_thread": False}}
    folder = Path(database.removeprefix("file:")).parent
    if not folder.is_dir():
        raise UserError(f"store {url}: there is no folder {folder}; make it first")
    # Threads wait for SQLite's lock, not for a connection.
    return {"max_overflow": -1, "connect_args": {} if "timeout" in url.query else {"timeout": BUSY_SECONDS}}


def _server_options() -> dict[str, Any]:
    # A writer sees what the one before it wrote once it has the lock.
    return {"isolation_level": "READ COMMITTED", "pool_pre_ping": True, "pool_timeout": BUSY_SECONDS}


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own
    for pragma in ("synchronous=FULL", "foreign_keys=ON", f"cache_size=-{CACHE}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_up_postgresql(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = {int(BUSY_SECONDS * 1000)}")
    cursor.close()
    connection.commit()


def use_wal(engine: Engine) -> None:
    """Let readers go on while SQLite writes: the file keeps a write-ahead log from now on, where its disk allows."""
    with in_words(engine):
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            [(milliseconds,)] = cursor.execute("PRAGMA busy_timeout").fetchall()
            end = time.monotonic() + milliseconds / 1000
            while True:
                try:
                    cursor.execute("PRAGMA journal_mode=WAL").fetchall()
                    break
                except sqlite3.OperationalError as error:  # SQLite itself doesn't wait for locks here
                    if "locked" not in str(error) or time.monotonic() > end:
                        raise OperationalError("PRAGMA journal_mode=WAL", None, error) from error
                    time.sleep(0.02)
            cursor.close()
        finally:
            raw.close()


@contextmanager
def writing(engine: Engine, *, locked: bool = True) -> Iterator[Connection]:
    """Transaction that writes, the only one at its time: all of it or nothing is kept.

    Args:
        engine: The store's.
        locked: False while a database other than SQLite has no tables yet.

    Raises:
        UserError: The database can't be reached or written, or is locked for too long.
    """
    with in_words(engine), engine.connect().execution_options(writes=True) as connection, connection.begin():
        if locked and engine.dialect.name != "sqlite":
            connection.execute(WRITER)
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Transaction that only reads, one state of the database throughout.

    Raises:
        UserError: The database can't be reached.
    """
    options = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with in_words(engine), engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


REASONS = {
    "unable to open database file": "the file can't be opened; check its folder and who may read it",
    "readonly": "it can't be written; check who may write the file and its folder",
    "is locked": "another process has held it for too long; try again, or end that process",
    "lock timeout": "another process has held it for too long; try again, or end that process",
    "not a database": "the file is no SQLite database; give another name",
    "is full": "the disk is full; nothing of this call was stored",
}
"""What errors of a database mean, by words in them."""


@contextmanager
def in_words(engine: Engine) -> Iterator[None]:
    """Say in one sentence what is wrong with the database; errors of our statements go through."""
    try:
        yield
    except (OperationalError, DatabaseError, TimeoutError, ArgumentError) as error:
        if isinstance(error, DatabaseError) and type(error) not in (OperationalError, DatabaseError):
            raise
        said = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        reason = next((reason for words, reason in REASONS.items() if words in said), said)
        raise UserError(f"store {name_of(engine)}: {reason}") from error
