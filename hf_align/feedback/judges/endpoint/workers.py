"""A few threads at work, which end at the first error and at once on Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
LOOK = 0.2
"""Seconds between looks of the waiting thread, which no signal wakes on some systems."""


class Stopped(Exception):
    """A worker gave up because others failed or the user interrupted."""


def run_all(work: Callable[[Item, threading.Event], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """`work(item, stop)` for every item, some at a time, in any order; the results are in the items' order.

    After an error no item is begun; what is at work is waited for, and the error of the earliest item is raised. On
    Ctrl-C nothing is waited for: the threads are daemons, which finish in the background as long as the process lives.

    Args:
        work: Called in threads; where it waits, it should look whether `stop` is set and raise `Stopped`.
        items: `[N]` items.
        workers: Threads at most; with one item, or one worker, `work` is called in this thread.
    """
    stop = threading.Event()
    if min(workers, len(items)) <= 1:
        return [work(item, stop) for item in items]
    results: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    numbers, lock = iter(range(len(items))), threading.Lock()

    def labour() -> None:
        while not stop.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                results[number] = work(items[number], stop)
            except BaseException as error:  # raised in the thread that waits
                errors[number] = error
                stop.set()

    threads = [threading.Thread(target=labour, daemon=True) for _ in range(min(workers, len(items)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(LOOK)
    except BaseException:
        stop.set()
        raise
    told = {number: error for number, error in errors.items() if not isinstance(error, Stopped)}
    if told:
        raise told[min(told)]
    return [results[number] for number in range(len(items))]
