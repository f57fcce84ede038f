"""Threads at work."""

from __future__ import annotations

import threading

import pytest

from hf_align.feedback.judges.endpoint.workers import Stopped, run_all


def test_the_error_of_the_earliest_item_is_raised_and_nothing_is_begun_after_it():
    begun, both = [], threading.Barrier(2)

    def fail(item: int, stop: threading.Event) -> None:
        begun.append(item)
        both.wait(60)
        if item:
            stop.wait(60)  # the second to fail has the later item, or gave up because of the first
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        run_all(fail, range(9), 2)
    assert sorted(begun) == [0, 1]


def test_a_worker_that_gave_up_hides_no_error():
    both = threading.Barrier(2)

    def fail(item: int, stop: threading.Event) -> None:
        both.wait(60)
        if item == 1:
            raise ValueError("item 1")
        stop.wait(60)
        raise Stopped

    with pytest.raises(ValueError, match="item 1"):
        run_all(fail, range(2), 2)
