"""Reading of runs' records: metrics as they stand after all resumes, and checkpoints."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hf_align.errors import UserError
from hf_align.tracking.directions import is_greater_better
from hf_align.tracking.schema import FILE, file_of, open_to_read

Row = tuple[int, int, str, float, float]
"""Number of the session, step, name, value and time of a logged value."""


class Point(NamedTuple):
    """A value of a metric.

    Attributes:
        step: The step of the weights that were measured, of its stage.
        value: May be NaN or infinite.
        stage: "" in a run of one stage.
        time: Seconds since 1970.

    Example:
        >>> from hf_align.tracking import Point
        >>> Point(10, 0.5, "", 0.0).value
        0.5
    """

    step: int
    value: float
    stage: str
    time: float


@dataclass(frozen=True)
class Session:
    """A start or resume of a run or stage.

    Attributes:
        number: Its place among the record's sessions.
        stage: Name of the stage; "" for a run of one.
        prefix: What its metrics' names begin with.
        status: "finished", "stopped", "failed", or "unfinished": it is running, or its process was killed.
        from_step: Step that it went on from.
        started: Seconds since 1970.
        ended: The same; None while unfinished.
        facts: `versions`, `git`, `command`, `host`, and a stage's own `config`, `data` and `base`.

    Example:
        >>> from hf_align.tracking import Session
        >>> Session(1, "", "dpo", "finished", 0, 0.0, 60.0, {}).ended
        60.0
    """

    number: int
    stage: str
    prefix: str
    status: str
    from_step: int
    started: float
    ended: float | None
    facts: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of a run.

    Attributes:
        folder: Its folder.
        step: The step of its weights.
        stage: Its stage.
        parts: `policy`, `value` and `reward` that belong together, as far as there are: folders, or `hub:ID`.
        metrics: What was measured at its step, by name.
        time: When it was saved, in seconds since 1970.
        removed: When it was found to be gone, or None.

    Example:
        >>> from pathlib import Path
        >>> from hf_align.tracking import Checkpoint
        >>> Checkpoint(Path("out/checkpoint-5"), 5, "", {"policy": "out/checkpoint-5"}, {}, 0.0, None).exists
        False
    """

    folder: Path
    step: int
    stage: str
    parts: dict[str, str]
    metrics: dict[str, float] = field(repr=False)
    time: float
    removed: float | None

    @property
    def exists(self) -> bool:
        """Whether its folder is on the disk."""
        return self.folder.is_dir()


@dataclass
class Run:
    """A training as its record has it; from `read_runs`.

    Attributes:
        file: The record.
        id: The run's id.
        algorithm: The algorithm's name.
        status: "finished", "stopped" before its last step, "failed", or "unfinished": it is running, or its process
            was killed.
        started: Seconds since 1970.
        ended: The same; None while unfinished.
        config: Its options, without secrets.
        data: `fingerprint` and number of `rows` of `train` and `eval`.
        base: `name` and `fingerprint` of the model that it started from.
        sessions: Its starts and resumes, in order.

    Example:
        >>> from hf_align import DPOConfig, DPOTrainer
        >>> from hf_align.tracking import read_runs
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> trainer = DPOTrainer(model, args=DPOConfig("out", max_steps=2, logging_steps=1), train_dataset=rows)
        >>> trainer.train()
        >>> [run] = read_runs("out")
        >>> run.algorithm, run.status, [point.step for point in run.metrics("loss")]
        ('dpo', 'finished', [1, 2])
    """

    file: Path
    id: str
    algorithm: str
    status: str
    started: float
    ended: float | None
    config: dict[str, Any] = field(repr=False)
    data: dict[str, Any] = field(repr=False)
    base: dict[str, Any] = field(repr=False)
    sessions: list[Session] = field(repr=False)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.file.parent

    @cached_property
    def _rows(self) -> list[Row]:
        """All that was ever logged, in order."""
        query = (
            "SELECT s.number, m.step, m.name, m.value, m.time FROM metrics m JOIN sessions s ON s.id = m.session "
            "WHERE s.run = ? ORDER BY m.rowid"
        )
        with open_to_read(self.file) as connection:
            rows = connection.execute(query, (self.id,)).fetchall()
        return [(*row[:3], math.nan if row[3] is None else row[3], row[4]) for row in rows]

    @cached_property
    def _points(self) -> dict[str, list[Point]]:
        """Metrics by name, as they stand: without what a later session of the stage went back behind."""
        stages = list(dict.fromkeys(session.stage for session in self.sessions))
        of = {session.number: session for session in self.sessions}
        ends = {number: self._end_of(session) for number, session in of.items()}
        found: dict[str, dict[tuple[int, int], Point]] = {}
        for number, step, name, value, time in self._rows:
            if step <= ends[number]:
                stage = of[number].stage
                found.setdefault(name, {})[stages.index(stage), step] = Point(step, value, stage, time)
        return {name: [points[key] for key in sorted(points)] for name, points in found.items()}

    def _end_of(self, session: Session, before: float = math.inf) -> float:
        """The last step of a session that sessions of its stage with numbers up to `before` didn't go back behind."""
        later = (e.from_step for e in self.sessions if session.number < e.number <= before and e.stage == session.stage)
        return min(later, default=math.inf)

    def last_sign(self, session: Session) -> float:
        """When a session ended or, killed or running, last logged something: seconds since 1970."""
        logged = (time for number, *_, time in self._rows if number == session.number)
        return session.ended or max(logged, default=session.started)

    @property
    def names(self) -> list[str]:
        """Names of all metrics, with their prefixes, in the order in which they were first logged."""
        return list(self._points)

    def metrics(self, name: str) -> list[Point]:
        """Values of a metric, stage by stage and step by step; [] if it was never logged.

        Args:
            name: With its prefix (`rm/eval_loss`), or without: then of all stages that logged it.
        """
        stages = list(dict.fromkeys(session.stage for session in self.sessions))
        points = [point for each in self._full_names(name) for point in self._points[each]]
        return sorted(points, key=lambda point: (stages.index(point.stage), point.step))

    def _full_names(self, name: str) -> list[str]:
        """The logged metrics that are meant by a name with or without prefix."""
        meant = {name, *(f"{session.prefix}/{name}" for session in self.sessions)}
        return [each for each in self.names if each in meant]

    def check_comparable(self, name: str) -> None:
        """Refuse a name that several algorithms of a hybrid have, such as `loss`: their values aren't comparable.

        Raises:
            UserError: Names them.
        """
        if len(names := self._full_names(name)) > 1:
            raise UserError(
                f"metric {name!r} is one of several algorithms of {self.folder}; give {' or '.join(names)}."
            )

    def best(self, name: str, greater_is_better: bool | None = None) -> Point | None:
        """The best finite value of a metric; None if there is none.

        Raises:
            UserError: It isn't known which way is better, or several algorithms have one of this name.
        """
        sign = 1 if is_greater_better(name, greater_is_better) else -1
        self.check_comparable(name)
        finite = [point for point in self.metrics(name) if math.isfinite(point.value)]
        return max(finite, key=lambda point: sign * point.value, default=None)

    @property
    def steps(self) -> int:
        """The last step that anything was logged at, summed over stages."""
        last: dict[str, int] = {}
        for point in (point for points in self._points.values() for point in points):
            last[point.stage] = max(last.get(point.stage, 0), point.step)
        return sum(last.values())

    @cached_property
    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints in the order in which they were saved, those that are gone included."""
        query = (
            "SELECT s.number, c.path, c.step, c.parts, c.time, c.removed FROM checkpoints c "
            "JOIN sessions s ON s.id = c.session WHERE c.run = ? ORDER BY c.time"
        )
        with open_to_read(self.file) as connection:
            rows = connection.execute(query, (self.id,)).fetchall()
        of = {session.number: session for session in self.sessions}
        found = []
        for number, path, step, parts, time, removed in rows:
            places = {name: self._place(place) for name, place in json.loads(parts).items()}
            measured = self._measured(of[number], step)
            found.append(Checkpoint(self.folder / path, step, of[number].stage, places, measured, time, removed))
        return found

    def _place(self, place: str) -> str:
        return place if place.startswith("hub:") else os.path.normpath(self.folder / place)

    def _measured(self, session: Session, step: int) -> dict[str, float]:
        """What was measured at a step on the weights of a session: by it, or by another that had the same ones."""
        same = {
            each.number
            for each in self.sessions
            if each.stage == session.stage
            and self._end_of(min(each, session, key=_number), max(each.number, session.number)) >= step
        }
        return {name: value for number, at, name, value, _ in self._rows if at == step and number in same}


def _number(session: Session) -> int:
    return session.number


def read_record(path: str | os.PathLike[str]) -> list[Run]:
    """Read the runs of one record, in the order in which they were begun.

    Args:
        path: The record, or its folder.

    Raises:
        UserError: There is none, or it can't be read.
    """
    file = file_of(Path(path))
    with open_to_read(file) as connection:
        runs = connection.execute(
            "SELECT id, algorithm, status, started, ended, facts FROM runs ORDER BY number"
        ).fetchall()
        sessions = connection.execute(
            "SELECT run, number, stage, prefix, status, from_step, started, ended, facts FROM sessions ORDER BY number"
        ).fetchall()
    return [
        Run(
            file,
            run_id,
            algorithm,
            _status(status),
            started,
            ended,
            **json.loads(facts),
            sessions=[
                Session(number, stage, prefix, _status(status), from_step, started, ended, json.loads(facts))
                for of, number, stage, prefix, status, from_step, started, ended, facts in sessions
                if of == run_id
            ],
        )
        for run_id, algorithm, status, started, ended, facts in runs
    ]


def _status(written: str) -> str:
    return "unfinished" if written == "running" else written


def find_records(*folders: str | os.PathLike[str]) -> list[Path]:
    """The records in and below folders, by path.

    Raises:
        UserError: There is no such folder.
    """
    found: set[Path] = set()
    for folder in map(Path, folders or (".",)):
        if folder.is_file():
            found.add(folder)
        elif folder.is_dir():
            found.update(folder.rglob(FILE))
        else:
            raise UserError(f"{folder} is no folder.")
    return sorted(found)


def read_runs(*folders: str | os.PathLike[str]) -> list[Run]:
    """Read the runs in and below folders, in the order in which they were begun.

    Args:
        folders: Default: the current one.

    Raises:
        UserError: There is no such folder, or a record can't be read.

    Example:
        >>> from hf_align.tracking import RunRecord, read_runs
        >>> for algorithm in ("dpo", "ipo"):
        ...     RunRecord.start(f"runs/{algorithm}", algorithm).end("finished")
        >>> [run.algorithm for run in read_runs("runs")]
        ['dpo', 'ipo']
    """
    runs = [run for file in find_records(*folders) for run in read_record(file)]
    return sorted(runs, key=lambda run: run.started)


def best_checkpoint(folder: str | os.PathLike[str], metric: str, greater_is_better: bool | None = None) -> Checkpoint:
    """The checkpoint of a folder's last run with the best value of a metric, among those that are on the disk.

    Args:
        folder: The run's folder.
        metric: Name of the metric, such as "eval_accuracy"; with or without its prefix.
        greater_is_better: Default: known for the losses, accuracies, margins, rewards and judges of our algorithms.

    Raises:
        UserError: There is no record, no such metric at a checkpoint that is left, or no known direction; or several
            algorithms of a hybrid have a metric of this name.

    Example:
        >>> from hf_align import RewardConfig, RewardTrainer
        >>> from hf_align.tracking import best_checkpoint
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> config = RewardConfig("out", max_steps=2, save_steps=1, eval_steps=1, eval_strategy="steps")
        >>> model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> trainer = RewardTrainer(model, args=config, train_dataset=rows, eval_dataset=rows)
        >>> trainer.train()
        >>> best_checkpoint("out", "eval_margin").folder.name
        'checkpoint-2'
    """
    sign = 1 if is_greater_better(metric, greater_is_better) else -1
    runs = read_record(folder)
    if not runs:
        raise UserError(f"{folder}: its record has no run.")
    run = runs[-1]
    run.check_comparable(metric)
    measured: list[tuple[float, float, Checkpoint]] = []
    for checkpoint in run.checkpoints:
        names = {metric, *(f"{session.prefix}/{metric}" for session in run.sessions)}
        values = [value for name, value in checkpoint.metrics.items() if name in names and math.isfinite(value)]
        if values and checkpoint.exists:
            measured.append((sign * values[-1], checkpoint.time, checkpoint))
    if measured:
        return max(measured, key=lambda each: each[:2])[2]
    if run.metrics(metric):
        left = [each.step for each in run.checkpoints if each.exists]
        steps = sorted({point.step for point in run.metrics(metric)})
        raise UserError(
            f"{folder}: no checkpoint is left of a step at which {metric} was measured (checkpoints of steps "
            f"{_listed(left)}; measured at {_listed(steps)}); save at the steps of evaluations."
        )
    raise UserError(f"{folder}: {metric} was never logged; there is {', '.join(run.names) or 'nothing'}.")


def _listed(steps: list[int]) -> str:
    shown = [str(step) for step in steps[-6:]]
    return ("..., " if len(steps) > 6 else "") + (", ".join(shown) or "none")
