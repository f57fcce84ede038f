"""Writing of a run's record while it trains.

Every call is one transaction, so that a killed process loses nothing of the calls that returned. What can't be written,
on a full disk or in a folder that has become read-only, waits in memory for the next call: training goes on, with one
warning.
"""

from __future__ import annotations

import json
import logging
import math
import numbers
import os
import sqlite3
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hf_align.errors import UserError
from hf_align.tracking.facts import surroundings, without_secrets
from hf_align.tracking.schema import FILE, open_to_write

logger = logging.getLogger(__name__)

Status = Literal["running", "finished", "stopped", "failed"]
"""How a run or session ended: with its last step, before it (early stopping, Ctrl-C), or with an error."""
MOST_WAITING = 100_000
"""Rows that wait in memory for a disk that can't be written."""


class RunRecord:
    """The record of one run, being written; made by `start`, ended by `end` or as a context.

    Attributes:
        folder: The folder of `run.sqlite`, which paths of checkpoints are relative to.
        id: The run's id.

    Example:
        >>> from hf_align.tracking import RunRecord, read_runs
        >>> record = RunRecord.start("out", "my-loop", config={"lr": 0.1})
        >>> session = record.session(prefix="my")
        >>> for step in range(1, 4):
        ...     session.log(step, {"loss": 1 / step})
        >>> record.end("finished")
        >>> [run] = read_runs("out")
        >>> run.status, [point.value for point in run.metrics("loss")]
        ('finished', [1.0, 0.5, 0.3333333333333333])
    """

    def __init__(self, folder: str | os.PathLike[str], run_id: str) -> None:
        self.folder, self.id = Path(folder), run_id
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []
        self._warned = self._given_up = False

    @classmethod
    def start(
        cls,
        folder: str | os.PathLike[str],
        algorithm: str,
        *,
        config: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        base: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> RunRecord:
        """Begin a run in a folder's record, or go on with its last one of the same algorithm.

        Args:
            folder: The run's output folder; made if missing.
            algorithm: Its name.
            config: Options. Secrets are left out.
            data: Of `train` and `eval` the `fingerprint` and number of `rows`.
            base: `name` and `fingerprint` of the model that it starts from.
            resume: Whether to go on with the last run, if there is one; its facts stay.
        """
        record = cls(folder, uuid.uuid4().hex)
        earlier = record._last_run(algorithm) if resume else None
        if earlier is not None:
            record.id = earlier
            record._write(("UPDATE runs SET status='running', ended=NULL WHERE id=?", (earlier,)))
            return record
        facts = _json({"config": without_secrets(config or {}), "data": dict(data or {}), "base": dict(base or {})})
        insert = "INSERT INTO runs (id, algorithm, status, started, facts) VALUES (?, ?, 'running', ?, ?)"
        record._write((insert, (record.id, algorithm, time.time(), facts)))
        return record

    def session(
        self, stage: str = "", *, prefix: str, from_step: int = 0, facts: Mapping[str, Any] | None = None
    ) -> RunSession:
        """Begin a session: a start of the run or of one of its stages, or a resume.

        Args:
            stage: Name of the stage; "" for a run of one.
            prefix: Put before the names of its metrics, with a slash.
            from_step: Step that it goes on from. Earlier sessions' rows of this stage beyond it no longer count.
            facts: `config`, `data` and `base` where the stage has its own, and further `host` facts.
        """
        given, here = dict(facts or {}), surroundings()
        here["host"] |= given.pop("host", {})
        session = RunSession(self, uuid.uuid4().hex, prefix)
        insert = (
            "INSERT INTO sessions (id, run, stage, prefix, status, from_step, started, facts) "
            "VALUES (?, ?, ?, ?, 'running', ?, ?, ?)"
        )
        values = (session.id, self.id, stage, prefix, from_step, time.time(), _json(without_secrets({**given, **here})))
        self._write((insert, values))
        return session

    def checkpoint(self, session: str, path: str, step: int, parts: Mapping[str, str]) -> None:
        """Note a checkpoint, and which of the earlier ones are gone from the disk."""
        insert = "INSERT OR REPLACE INTO checkpoints (run, path, session, step, parts, time) VALUES (?, ?, ?, ?, ?, ?)"
        removed = "UPDATE checkpoints SET removed=? WHERE run=? AND path=? AND removed IS NULL"
        gone = [each for each in self._paths() if each != path and not (self.folder / each).exists()]
        now = time.time()
        self._write(
            (insert, (self.id, path, session, step, _json(parts), now)),
            *((removed, (now, self.id, each)) for each in gone),
        )

    def end(self, status: Status) -> None:
        """Note how the run ended, and close the file."""
        self._write(("UPDATE runs SET status=?, ended=? WHERE id=?", (status, time.time(), self.id)))
        self.close()

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """End the run: finished, stopped by Ctrl-C, or failed."""
        self.end("finished" if kind is None else "stopped" if issubclass(kind, KeyboardInterrupt) else "failed")

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _last_run(self, algorithm: str) -> str | None:
        rows = self._read("SELECT id FROM runs WHERE algorithm=? ORDER BY number DESC LIMIT 1", algorithm)
        return rows[0][0] if rows else None

    def _paths(self) -> list[str]:
        rows = self._read("SELECT path FROM checkpoints WHERE run=? AND removed IS NULL", self.id)
        return [path for (path,) in rows]

    def _read(self, query: str, *values: Any) -> list[Any]:
        """Rows of a query; none where the file can't be used, which the write that follows warns of."""
        try:
            return self._opened().execute(query, values).fetchall()
        except (sqlite3.Error, OSError, UserError):
            return []

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._connection = open_to_write(self.folder / FILE)
        return self._connection

    def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        """Write statements, with those that wait, in one transaction; a disk that fails only makes them wait."""
        if self._given_up:
            return
        self._waiting += statements
        try:
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in self._waiting:
                    connection.execute(statement, values)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK") if connection.in_transaction else None
                raise
            self._waiting.clear()
        except UserError as error:
            self._give_up(f"This run isn't recorded: {error}")
        except (sqlite3.Error, OSError) as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if not self._warned:
                self._warned = True
                logger.warning(
                    f"{self.folder / FILE} can't be written ({error}): the training goes on, and its rows wait in "
                    "memory until it can."
                )
            if len(self._waiting) > MOST_WAITING:
                self._give_up(f"{self.folder / FILE} still can't be written ({error}): the run is no longer recorded.")

    def _give_up(self, why: str) -> None:
        logger.warning(why)
        self._given_up = True
        self._waiting.clear()


class RunSession:
    """A start or resume of a run that writes its metrics and checkpoints; made by `RunRecord.session`.

    Example:
        >>> from hf_align.tracking import RunRecord, read_runs
        >>> with RunRecord.start("out", "my-loop") as record:
        ...     session = record.session(prefix="my")
        ...     session.log(10, {"eval_loss": 0.5})
        ...     session.checkpoint("out/checkpoint-10", 10, {"policy": "out/checkpoint-10"})
        ...     session.end("finished")
        >>> read_runs("out")[-1].checkpoints[0].metrics
        {'my/eval_loss': 0.5}
    """

    def __init__(self, record: RunRecord, session_id: str, prefix: str) -> None:
        self.record, self.id, self.prefix = record, session_id, prefix

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Record metrics of a step in one transaction; what isn't a number is left out, NaN and infinities aren't.

        Args:
            step: The step of the weights that were measured.
            values: Numbers by name, without the prefix.
        """
        now = time.time()
        insert = "INSERT INTO metrics (session, step, name, value, time) VALUES (?, ?, ?, ?, ?)"
        rows = [
            (self.id, step, f"{self.prefix}/{name}", None if math.isnan(value) else float(value), now)
            for name, value in values.items()
            if isinstance(value, numbers.Real)
        ]
        self.record._write(*((insert, row) for row in rows))

    def checkpoint(self, folder: str | os.PathLike[str], step: int, parts: Mapping[str, str]) -> None:
        """Record a checkpoint.

        Args:
            folder: Its folder.
            step: The step of its weights.
            parts: Where policy, value head and reward model that belong together are: paths, or `hub:ID`.
        """
        self.record.checkpoint(self.id, self._relative(folder), step, {k: self._relative(v) for k, v in parts.items()})

    def _relative(self, path: str | os.PathLike[str]) -> str:
        text = os.fspath(path)
        return text if text.startswith("hub:") else Path(os.path.relpath(text, self.record.folder)).as_posix()

    def end(self, status: Status) -> None:
        """Note how the session ended."""
        ended = "UPDATE sessions SET status=?, ended=? WHERE id=?"
        self.record._write((ended, (status, time.time(), self.id)))


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, default=str)
