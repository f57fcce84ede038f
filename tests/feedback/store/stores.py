"""Small stores for tests, a clock, and processes of their own that use a store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import Any

from sqlalchemy import Engine, event

from hf_align.feedback import Lease, PreferenceStore, Prompt, Response, Task


class Clock:
    """A clock that goes on by a second at each look."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 1
        return self.now


def fill(store: PreferenceStore, n: int = 1, **fields: Any) -> list[Task]:
    """Add n prompts with a task each."""
    prompts = [Prompt(f"Prompt {number}") for number in range(n)]
    responses = [[Response(prompt.id, text, "model") for text in ("good", "bad")] for prompt in prompts]
    tasks = [Task.of(*pair, **fields) for pair in responses]
    store.add(prompts=prompts, responses=[r for pair in responses for r in pair], tasks=tasks)
    return tasks


def give(store: PreferenceStore, name: str, **options: Any) -> Lease:
    """Lease of the next task, of which there is one."""
    lease = store.lease(name, **options)
    assert lease is not None
    return lease


def start(target: Callable[..., None], *args: Any) -> ForkProcess:
    """Run a function in a process of its own.

    It is a copy of this one, since importing torch for each takes seconds: nothing here may hold the store open.
    """
    process = multiprocessing.get_context("fork").Process(target=target, args=args, daemon=True)
    process.start()
    return process


def finish(*processes: ForkProcess) -> list[int | None]:
    """Wait for processes; their exit codes."""
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def open_at(url: str, moment: float) -> None:
    """Open a store at a moment, so that several processes do at once."""
    time.sleep(max(0.0, moment - time.time()))
    PreferenceStore(url).close()


def open_and_die(url: str, statement: int) -> None:
    """Open a store and be killed before a statement that changes it."""
    seen = 0

    def count(_: Any, __: Any, sql: str, *___: Any) -> None:
        nonlocal seen
        seen += not sql.startswith(("BEGIN", "PRAGMA", "SELECT"))
        if seen > statement:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    PreferenceStore(url)
