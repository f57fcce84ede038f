"""Answers on disk: what was answered once is never asked again, by however many processes, killed or alive.

A request is claimed before it is sent, and its answer is stored at once. Who finds it claimed waits for the answer. A
claim ends with its process; where that is on another machine, with its time.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import psutil
from huggingface_hub import constants

from hf_align.errors import UserError

MEMORY = ":memory:"
"""Name of a cache that ends with its object."""
VERSION = 1
BUSY_SECONDS = 60.0
"""How long a process waits for another one's lock on the file."""
SAME_START = 2.0
"""Seconds by which the start of one process may seem to differ."""
_TABLES = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, model TEXT NOT NULL, answer TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, ends REAL NOT NULL)",
)
_FIND = "SELECT answer FROM answers WHERE key = ?"


class Claim(Enum):
    """What a request without an answer is."""

    OURS = "ours"
    OTHERS = "others"


def this_process() -> str:
    """Name of this process that no other one has, now or later."""
    return f"{socket.gethostname()}|{os.getpid()}|{psutil.Process().create_time()}"


def default_path() -> Path:
    """Where answers are kept unless the user says otherwise."""
    return Path(constants.HF_HOME) / "hf_align" / "endpoint-answers.sqlite"


class AnswerCache:
    """Answers by the digest of everything that was asked.

    Args:
        path: An SQLite file, made if there is none, or `MEMORY`. Default: below HF_HOME.
        clock: Gives seconds since the epoch.
        process: Name of the process that claims, as `this_process` has it.

    Attributes:
        path: The file.

    Raises:
        UserError: The file can't be used.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, clock: Callable[[], float], process: str | None = None
    ) -> None:
        self.path = os.fspath(path or default_path())
        self.clock = clock
        self.process = process or this_process()
        self.owner = f"{self.process}|{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        with self._in_words():
            if self.path != MEMORY:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._set_up()

    def _set_up(self) -> None:
        # WAL with NORMAL: an answer outlives its process at once, without a flush of the disk for each.
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"):
            self._connection.execute(statement).fetchall()
        with self._writing() as run:
            [(version,)] = run("PRAGMA user_version").fetchall()
            tables = run("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != VERSION and (version or tables):
                raise UserError(f"cache {self.path}: the file holds something else; give another name")
            for statement in (*_TABLES, f"PRAGMA user_version={VERSION}"):
                run(statement)

    def get(self, key: str) -> str | None:
        """The answer to a request, or None."""
        with self._lock, self._in_words():
            row = self._connection.execute(_FIND, (key,)).fetchone()
        return None if row is None else row[0]

    def take(self, key: str, seconds: float) -> str | Claim:
        """The answer to a request; or who may ask for it, this caller for some seconds or another one.

        Args:
            key: The request's digest.
            seconds: How long other machines respect the claim unless it is extended.
        """
        if (answer := self.get(key)) is not None:
            return answer
        with self._writing() as run:
            if (row := run(_FIND, (key,)).fetchone()) is not None:
                return row[0]
            claim = run("SELECT owner, ends FROM claims WHERE key = ?", (key,)).fetchone()
            if claim is not None and _lives(claim[0], ends=claim[1], now=self.clock()):
                return Claim.OTHERS
            run("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (key, self.owner, self.clock() + seconds))
            return Claim.OURS

    def extend(self, key: str, seconds: float) -> None:
        """Let this cache's claim last for some seconds from now on."""
        with self._writing() as run:
            ends = self.clock() + seconds
            run("UPDATE claims SET ends = ? WHERE key = ? AND owner = ?", (ends, key, self.owner))

    def put(self, key: str, model: str, answer: str) -> None:
        """Store an answer and give the claim back."""
        with self._writing() as run:
            run("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", (key, model, answer))
            run("DELETE FROM claims WHERE key = ?", (key,))

    def release(self, key: str) -> None:
        """Give a claim back without an answer."""
        with self._writing() as run:
            run("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """Transaction with the file's write lock."""
        with self._lock, self._in_words():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise UserError(f"cache {self.path} can't be used: {error}; check it, or give another file") from error


def _lives(owner: str, *, ends: float, now: float) -> bool:
    """Whether the process of a claim is still at work; of one on another machine only the claim's time is known."""
    host, pid, created = owner.split("|")[:3]
    if host != socket.gethostname():
        return now < ends
    try:
        # A number may have been given to a later process; the system's clock may have been set a little.
        return abs(psutil.Process(int(pid)).create_time() - float(created)) < SAME_START
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
