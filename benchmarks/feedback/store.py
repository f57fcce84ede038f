"""The preference store under kills, writers at once and load: `python -m benchmarks.feedback.store [--out FILE]`.

`--parts load` measures that part alone and leaves the others in the file as they are; each says how it was measured.

Writers are processes that answer tasks and note each answer in a file of theirs once the store has returned. Whatever
is noted must be in the store, once and on the right side.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import insert, update

from benchmarks.machine import commit, describe_machine
from hf_align.feedback import Annotator, PreferenceStore, Prompt, Response, Task
from hf_align.feedback.store.connection import writing
from hf_align.feedback.store.schema import answers as answer_table, leases as lease_table, tasks as task_table
from hf_align.version import versions

Value = TypeVar("Value")
PARTS = ("kills", "writers", "load")
WANTED = 2
DEADLINE = 120.0
"""Seconds that writers may take where nothing is killed."""


@dataclass(frozen=True)
class Outcome:
    """What a store holds after its writers, compared with what they noted.

    Attributes:
        noted: Answers that the store had returned to a writer.
        lost: Noted answers that the store lacks, or has with another preference.
        doubled: Answers of one person to one task beyond the first.
        beyond: Tasks with more answers than wanted.
        miscounted: Tasks whose count of answers is wrong.
        intact: SQLite finds no fault in the file.
    """

    noted: int
    lost: int
    doubled: int
    beyond: int
    miscounted: int
    intact: bool

    @property
    def clean(self) -> bool:
        """Nothing is lost, doubled or wrong."""
        return self.intact and not (self.lost or self.doubled or self.beyond or self.miscounted)


def url_in(folder: Path) -> str:
    """URL of the store of a folder."""
    return f"sqlite:///{folder / 'prefs.db'}"


def fill(folder: Path, n: int) -> None:
    """Make a store of n tasks, each wanted twice; it is closed again, since no process that forks may hold it open."""
    prompts = [Prompt(f"Prompt {number}") for number in range(n)]
    responses = [[Response(prompt.id, text, "model") for text in ("good", "bad")] for prompt in prompts]
    tasks = [Task.of(*pair, wanted=WANTED) for pair in responses]
    store = PreferenceStore(url_in(folder))
    store.add(prompts=prompts, responses=[one for pair in responses for one in pair], tasks=tasks)
    store.close()


def answer_all(url: str, name: str, notes: Path) -> None:
    """Answer all that is there for a name, and note each answer: "id task preference"."""
    store = PreferenceStore(url)
    with notes.open("a", encoding="utf-8") as file:
        while (lease := store.lease(name)) is not None:
            answer = store.answer(lease.id, lease.preference("left"), id=lease.id)
            file.write(f"{answer.id} {answer.task_id} {answer.preference}\n")
            file.flush()


def start_writer(folder: Path, name: str) -> ForkProcess:
    """Start a process that answers under a name."""
    arguments = (url_in(folder), name, folder / f"{name}.txt")
    process = multiprocessing.get_context("fork").Process(target=answer_all, args=arguments, daemon=True)
    process.start()
    return process


def check(folder: Path) -> Outcome:
    """Compare the store with its writers' notes; they may go on meanwhile."""
    noted = [line.split() for file in folder.glob("*.txt") for line in file.read_text(encoding="utf-8").splitlines()]
    with sqlite3.connect(folder / "prefs.db") as database:
        database.execute("BEGIN")  # one state throughout
        answers = database.execute("SELECT id, task_id, annotator, preference FROM answers").fetchall()
        given = dict(database.execute("SELECT id, given FROM tasks"))
        intact = database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    database.close()
    kept = {id: (task, preference) for id, task, _, preference in answers}
    of_task = Counter(task for _, task, _, _ in answers)
    return Outcome(
        noted=len(noted),
        lost=sum(kept.get(id) != (task, float(preference)) for id, task, preference in noted),
        doubled=len(answers) - len({(task, name) for _, task, name, _ in answers}),
        beyond=sum(count > WANTED for count in of_task.values()),
        miscounted=sum(count != of_task[id] for id, count in given.items()),
        intact=intact,
    )


def kill_writers(folder: Path, *, kills: int, tasks: int, seed: int = 0) -> list[Outcome]:
    """Kill one of two writers, or both, at random moments, check the store, and start them again.

    Args:
        folder: Empty folder.
        kills: Moments at which something is killed.
        tasks: Tasks in the store; enough that the writers don't end before the last kill.
        seed: Of the moments and of who is killed.

    Returns:
        What the store held after each kill, and at the end.
    """
    draw = random.Random(seed)
    fill(folder, tasks)
    writers = {name: start_writer(folder, name) for name in ("anna", "ben")}
    outcomes: list[Outcome] = []
    for _ in range(kills):
        time.sleep(draw.uniform(0.02, 0.2))
        for name in draw.choice([["anna"], ["ben"], ["anna", "ben"]]):
            writers[name].kill()
            writers[name].join()
            if writers[name].exitcode != -signal.SIGKILL:
                raise RuntimeError(f"{name} ended with {writers[name].exitcode} before the kill; give more tasks")
        outcomes.append(check(folder))  # one that wasn't killed goes on meanwhile
        writers = {name: one if one.is_alive() else start_writer(folder, name) for name, one in writers.items()}
    for writer in writers.values():
        writer.kill()
        writer.join()
    return [*outcomes, check(folder)]


def write_together(folder: Path, *, writers: int, tasks: int) -> tuple[Outcome, float]:
    """Let writers answer everything at once; the outcome, and the seconds that it took."""
    fill(folder, tasks)
    start = time.perf_counter()
    processes = [start_writer(folder, f"person-{number}") for number in range(writers)]
    for process in processes:
        process.join(DEADLINE)
    seconds = time.perf_counter() - start
    if any(process.exitcode != 0 for process in processes):
        raise RuntimeError(f"writers ended with {[process.exitcode for process in processes]}")
    return check(folder), seconds


def load(folder: Path, *, tasks: int, answers: int, per_task: int = 10) -> PreferenceStore:
    """A store whose first tasks have answers, one of "eager" and the others of fifty people, and want one more.

    Each answer has its lease; everybody but "eager" and "person-7", whose calls are timed, holds one more.
    """
    fill(folder, tasks)
    store = PreferenceStore(url_in(folder))
    people = [f"person-{number}" for number in range(50)]
    store.add(annotators=[Annotator(name) for name in (*people, "eager")])
    ids = list(store.tasks())[: answers // per_task]
    rows = [
        {
            **{"id": f"{id}-{turn}", "task_id": id, "annotator": people[(n + turn) % 50] if turn else "eager"},
            **{"kind": "answer", "preference": 1.0, "left": "first", "answered_at": 1.0, "attempt": 0, "undo": False},
            **{"details": {}, "lease_id": f"{id}-{turn}"},
        }
        for n, id in enumerate(ids)
        for turn in range(per_task)
    ]
    showings = [
        {"id": row["id"], "task_id": row["task_id"], "annotator": row["annotator"], "closed": True, "expires_at": 1.0}
        for row in rows
    ]
    until = time.time() + 3600
    showings += [
        {"id": f"held-{name}", "task_id": id, "annotator": name, "closed": False, "expires_at": until}
        for name, id in zip(people, store.tasks(), strict=False)
        if name != "person-7"
    ]
    with writing(store.engine) as connection:  # adding them one by one takes minutes
        connection.execute(insert(lease_table), [{**row, "left": "first", "leased_at": 0.0} for row in showings])
        connection.execute(insert(answer_table), rows)
        numbers = task_table.c.number <= len(ids)
        connection.execute(update(task_table).where(numbers).values(given=per_task, wanted=per_task + 1))
    return store


def time_calls(folder: Path, *, tasks: int, answers: int, calls: int = 200) -> dict[str, Any]:
    """Times of the store's calls with many tasks and answers, in milliseconds that passed and of the processor.

    Waiting for the disk is in the first alone, and so is waiting for a processor that others use.
    Half the calls are those of somebody who has answered all that is begun, the worst case: what they get stands behind
    all of it.
    """
    store = load(folder, tasks=tasks, answers=answers)
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def timed(name: str, call: Callable[[], Value]) -> Value:
        start, of_processor = time.perf_counter(), time.process_time()
        value = call()
        taken[name].append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - of_processor)))
        return value

    for number in range(calls):
        name = ("eager", "person-7")[number % 2]
        lease = timed("lease", lambda name=name: store.lease(name))
        assert lease is not None
        timed("showing", lambda lease=lease: store.showing(lease))
        timed("progress", lambda name=name: store.progress(name))
        timed("answer", lambda lease=lease: store.answer(lease.id, 1.0, id=lease.id))
        if number % 10 == 9:
            timed("undo", lambda name=name, number=number: store.undo(name, id=f"undo-{number}"))
    statistics = timed("statistics", store.statistics)
    store.close()
    [(whole, of_processor)] = taken.pop("statistics")
    figures: dict[str, dict[str, float]] = {}
    for name, pairs in taken.items():
        passed, used = zip(*pairs, strict=True)
        figures[name] = {"median_ms": median(passed), "p95_ms": quantiles(passed, n=20)[-1]}
        figures[name] |= {"median_cpu_ms": median(used), "p95_cpu_ms": quantiles(used, n=20)[-1]}
        figures[name] = {key: round(ms, 2) for key, ms in figures[name].items()}
    of_all = {"statistics_ms": round(whole), "statistics_cpu_ms": round(of_processor)}
    return {"tasks": tasks, "answers": statistics["answers"], **figures, **of_all}


def measure_kills(folder: Path, *, kills: int) -> dict[str, Any]:
    """Figures of writers that are killed."""
    start = time.perf_counter()
    outcomes = kill_writers(folder, kills=kills, tasks=20_000)
    seconds = time.perf_counter() - start
    killed = {"kills": kills, "writers": 2, "seed": 0, "seconds": round(seconds, 1)}
    return killed | {"checks": len(outcomes), "clean": sum(one.clean for one in outcomes), "last": asdict(outcomes[-1])}


def measure_writers(folder: Path, *, writers: int) -> dict[str, Any]:
    """Figures of writers at once."""
    together, seconds = write_together(folder, writers=writers, tasks=1_000)
    at_once = {"writers": writers, "seconds": round(seconds, 1), "answers_per_second": round(together.noted / seconds)}
    return {**at_once, **asdict(together)}


def main() -> None:
    """Run the parts and print the figures as JSON, or write them."""
    parser = argparse.ArgumentParser(description="The preference store under kills, writers at once and load.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; default: all")
    parser.add_argument("--kills", type=int, default=50, help="moments at which a writer is killed")
    parser.add_argument("--writers", type=int, default=8, help="processes that write at once")
    parser.add_argument("--out", type=Path, help="file for the figures; default: printed")
    options = parser.parse_args()
    measures: dict[str, Callable[[Path], dict[str, Any]]] = {
        "kills": lambda folder: measure_kills(folder, kills=options.kills),
        "writers": lambda folder: measure_writers(folder, writers=options.writers),
        "load": lambda folder: time_calls(folder, tasks=20_000, answers=100_000),
    }
    out: Path | None = options.out
    figures = json.loads(out.read_text(encoding="utf-8")) if out is not None and out.exists() else {}
    for part in options.parts:
        with tempfile.TemporaryDirectory(prefix="store-") as folder:
            figures[part] = {"measured": describe_run(), **measures[part](Path(folder))}
    text = json.dumps(figures, indent=2) + "\n"
    if options.out is None:
        print(text, end="")
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")


def describe_run() -> dict[str, Any]:
    """Command, commit, machine and versions."""
    return {
        "command": " ".join(["python -m benchmarks.feedback.store", *sys.argv[1:]]),
        "commit": commit(),
        "machine": describe_machine(),
        "system": platform.system(),
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {**versions(), "sqlalchemy": sqlalchemy.__version__, "sqlite": sqlite3.sqlite_version},
    }


if __name__ == "__main__":
    main()
