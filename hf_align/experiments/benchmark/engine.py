"""The runs of a grid in their order: longest first, some side by side, failures kept apart, stopped cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_align.evaluation.grid import BASE, FAILED, RESULT
from hf_align.experiments.benchmark.execute import INTERRUPTED, attempt
from hf_align.experiments.benchmark.jobs import LOG, Job
from hf_align.files import write_json
from hf_align.numbers import plural
from hf_align.progress import Progress

MODULE = "hf_align.experiments.benchmark.execute"
PAUSE = 0.1
"""Seconds between two looks at the processes."""
PATIENCE = 120.0
"""Seconds that a process has to save a checkpoint after Ctrl-C, before it is ended."""


@dataclass
class Engine:
    """Does the runs of a benchmark that aren't finished.

    Args:
        jobs: All runs.
        out: The benchmark's folder.
        workers: Processes side by side; 0: one run after another in this process.
        keep: Whether checkpoints and policies stay.
        progress: Receiver of a line for each run.

    Attributes:
        failures: What ended a run, by its place.
    """

    jobs: Sequence[Job]
    out: Path
    workers: int
    keep: bool
    progress: Progress
    failures: dict[str, str] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Do them.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once the processes have saved their checkpoints.
        """
        self._done = {job.place for job in self.jobs if job.is_finished(self.out)}
        if self._done:
            self.progress.line(f"{len(self._done)} of {len(self.jobs)} runs are finished already")
        pending = sorted((job for job in self.jobs if job.place not in self._done), key=lambda job: -job.work)
        running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
        try:
            while pending or running:
                pending = self._without_unreachable(pending)
                ready = [job for job in pending if self._is_ready(job)]
                for job in ready[: max(1, self.workers) - len(running)]:
                    pending.remove(job)
                    job.begin(self.out)
                    if self.workers:
                        running[job.place] = job, self._start(job)
                    else:
                        self._end(job, attempt(job, self.out, self.progress, keep=self.keep))
                for job, process in list(running.values()):
                    if (code := process.poll()) is not None:
                        del running[job.place]
                        assert process.stdin is not None
                        process.stdin.close()
                        self._end(job, code)
                if running:
                    time.sleep(PAUSE)
        finally:
            self._stop([process for _, process in running.values()])

    def _has_result(self, place: str) -> bool:
        """Whether what needs a run can use it: of the base also while a data set's reward can't score it."""
        return place in self._done or (self.out / place / RESULT).exists()

    def _is_ready(self, job: Job) -> bool:
        return all(self._has_result(place) or (job.kind == BASE and place in self.failures) for place in job.needs)

    def _without_unreachable(self, pending: list[Job]) -> list[Job]:
        """The runs that can still be done: one that needs a failed one has failed with it.

        Not the base's, which only lacks the rewards of that data set then.
        """
        left = []
        for job in pending:
            failed = next(
                (place for place in job.needs if place in self.failures and not self._has_result(place)), None
            )
            if failed is None or job.kind == BASE:
                left.append(job)
            else:
                write_json(job.folder(self.out) / FAILED, job.failure(f"it needs {failed}, which failed"))
                self._say(job)
        return left

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        """A run's process: in a session of its own, so that Ctrl-C reaches it through us; it ends when we do."""
        command = [sys.executable, "-P", "-m", MODULE, str(self.out), job.place, "keep" if self.keep else "clear"]
        with (job.folder(self.out) / LOG).open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env=self._environment()
            )

    def _environment(self) -> Mapping[str, str]:
        """Ours, with the same places for imports, and side by side as many threads as there are cores for each."""
        paths = [path or os.getcwd() for path in sys.path]
        added = {"PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
        if self.workers > 1 and "OMP_NUM_THREADS" not in os.environ:
            added["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.workers))
        return {**os.environ, **added}

    def _end(self, job: Job, code: int) -> None:
        """Note how a run ended."""
        if code == INTERRUPTED and not self.workers:
            raise KeyboardInterrupt
        if job.is_finished(self.out):
            self._done.add(job.place)
        elif not (job.folder(self.out) / FAILED).exists():
            write_json(job.folder(self.out) / FAILED, job.failure(f"its process {_ending(code)}; see {LOG}"))
        self._say(job)

    def _say(self, job: Job) -> None:
        """A line on a run that has ended, and how many have."""
        path, count = job.folder(self.out) / RESULT, f"[{len(self._done) + len(self.failures)}/{len(self.jobs)}]"
        if job.place in self._done:
            figures = figures_of(json.loads(path.read_text(encoding="utf-8")))
            failed = f" ({len(self.failures)} failed)" if self.failures else ""
            self.progress.line(f"{count} {job.place}: {figures}{failed}")
            return
        problem = json.loads((job.folder(self.out) / FAILED).read_text(encoding="utf-8"))["reason"]
        self.failures[job.place] = problem
        count = f"[{len(self._done) + len(self.failures)}/{len(self.jobs)}]"
        self.progress.line(f"{count} {job.place} failed: {problem}", "yellow")

    def _stop(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Interrupt what still runs, and wait until checkpoints are saved; a second Ctrl-C ends it at once."""
        if processes:
            self.progress.line(
                f"stopping {plural(len(processes), 'run')} after the step under way (Ctrl-C: at once)", "yellow"
            )
        for process in processes:
            process.send_signal(signal.SIGINT)
        until = time.monotonic() + PATIENCE
        try:
            for process in processes:
                process.wait(max(0.0, until - time.monotonic()))
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()


def _ending(code: int) -> str:
    """How a process ended that wrote no result."""
    if code >= 0:
        return f"ended with status {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}{', perhaps for lack of memory' * (name == 'SIGKILL')}"


def figures_of(result: Mapping[str, Any]) -> str:
    """The main figures of a result, in one line."""
    figures = result.get("figures") or {}
    shown = [(name, figures[name]) for name in ("judge", "win", "reward", "kl") if figures.get(name)]
    parts = [f"{name} {sum(values) / len(values):.3g}" for name, values in shown]
    if result.get("steps"):
        parts.append(f"{result['steps']} steps")
    if (seconds := result.get("training_seconds")) is not None:
        parts.append(f"{seconds:.0f} s")
    return ", ".join(parts)
