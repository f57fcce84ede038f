"""Tables of a run's record, `run.sqlite`, and connections to it.

A record is an SQLite file in the folder of a run. It is kept in a write-ahead log while somebody writes: a transaction
then costs no flush to the disk, a killed process loses nothing that was committed, and readers don't wait. (After a
power cut the last transactions may be missing.) The last writer's end leaves one file.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_align.errors import UserError

FILE = "run.sqlite"
VERSION = 1
"""Version of the tables, in the file's `user_version`."""
APPLICATION = 0x6866_616C
"""The file's `application_id`: "hfal"."""
BUSY_SECONDS = 5.0
"""How long a writer waits for others."""

TABLES = (
    # A training from its start to its end, however often it was resumed. Several only where a folder was used again.
    """CREATE TABLE runs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        algorithm TEXT NOT NULL,
        status TEXT NOT NULL,    -- running, finished, stopped, failed; of a killed one it stays running
        started REAL NOT NULL,   -- seconds since 1970, as all times
        ended REAL,
        facts TEXT NOT NULL      -- JSON: config, data, base
    )""",
    # A start or resume of a run, or of a stage of it. A later one takes the place of an earlier one's rows of the same
    # stage beyond `from_step`.
    """CREATE TABLE sessions (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        run TEXT NOT NULL REFERENCES runs (id),
        stage TEXT NOT NULL,     -- '' for a run of one stage
        prefix TEXT NOT NULL,    -- of its metrics' names, such as rm
        status TEXT NOT NULL,
        from_step INTEGER NOT NULL,
        started REAL NOT NULL,
        ended REAL,
        facts TEXT NOT NULL      -- JSON: config, data, base, where a stage has its own; versions, git, command, host
    )""",
    """CREATE TABLE metrics (
        session TEXT NOT NULL REFERENCES sessions (id),
        step INTEGER NOT NULL,   -- of the weights that were measured
        name TEXT NOT NULL,      -- with its prefix, such as rm/eval_loss
        value REAL,              -- NULL is NaN, which SQLite lacks
        time REAL NOT NULL
    )""",
    """CREATE TABLE checkpoints (
        run TEXT NOT NULL REFERENCES runs (id),
        path TEXT NOT NULL,      -- relative to the record's folder
        session TEXT NOT NULL REFERENCES sessions (id),
        step INTEGER NOT NULL,
        parts TEXT NOT NULL,     -- JSON: policy, value, reward that belong together: relative paths, or hub:ID
        time REAL NOT NULL,
        removed REAL,            -- when it was found to be gone
        PRIMARY KEY (run, path)
    )""",
)


def file_of(path: str | Path) -> Path:
    """A record's file, given itself or its folder."""
    return Path(path, FILE) if Path(path).is_dir() else Path(path)


def open_to_write(file: Path) -> sqlite3.Connection:
    """Open a record, with its tables made if there are none; transactions are begun by hand.

    Raises:
        UserError: The file is no record, or one of a newer hf-align: no later try will succeed.
        sqlite3.Error: It can't be written now.
    """
    connection = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # A new file isn't flushed to the disk before it has rows: a power cut may leave it empty.
        connection.execute(f"PRAGMA synchronous={'NORMAL' if _check(connection, file) else 'OFF'}")
        _use_log(connection)
        connection.execute("BEGIN IMMEDIATE")
        if not _check(connection, file):  # nobody else has made them meanwhile
            for statement in TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, file: Path) -> int:
    """The version of the tables, 0 for an empty file."""
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        others = version or application or connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error) or "malformed" in str(error):
            raise UserError(f"{file} is no record of a run: {error}; move it away.") from None
        raise
    if others and application != APPLICATION:
        raise UserError(f"{file} is no record of a run: it is another program's database; move it away.")
    if version > VERSION:
        raise UserError(
            f"{file} was written by a newer hf-align (its tables have version {version}, this one knows {VERSION}); "
            "upgrade hf-align."
        )
    return version


def _use_log(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log; SQLite itself doesn't wait here while another process opens or closes the file."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)


@contextmanager
def open_to_read(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a record for reading, one state throughout, while others may write.

    Raises:
        UserError: There is none, or it can't be read.
    """
    if not file.is_file():
        where = f"{file.parent} has no record of a run ({FILE})" if file.name == FILE else f"there is no folder {file}"
        raise UserError(f"{where}.")
    try:
        file.open("rb").close()  # SQLite says of none why it can't be opened
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from None
    with tempfile.TemporaryDirectory() as folder:
        # Without a log nobody writes: nothing need be locked, which would leave files behind.
        how = "mode=ro" if Path(f"{file}-wal").exists() else "immutable=1"
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS)
        try:
            try:
                version = _check(connection, file)
            except sqlite3.OperationalError:  # a log can't be opened where this process may not write
                connection.close()
                for part in (file, Path(f"{file}-wal")):
                    if part.exists():
                        shutil.copy(part, folder)
                connection = sqlite3.connect(Path(folder, file.name), isolation_level=None)
                version = _check(connection, file)
            if not version:
                raise UserError(f"{file} is empty: its run hasn't begun.")
            connection.execute("BEGIN")
            yield connection
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{file} can't be read: {error}") from error
        finally:
            connection.close()
