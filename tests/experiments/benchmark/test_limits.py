"""The count of a training's seconds."""

from __future__ import annotations

import time
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_align.experiments.benchmark.limits import Elapsed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_seconds_are_counted_over_stops_and_without_pauses(clock: list[float]):
    elapsed, control = Elapsed(10.0), TrainerControl()
    state: Any = TrainerState()
    args: Any = TrainingArguments("out", save_strategy="steps")
    elapsed.on_train_begin(args, state, control)
    clock[0] += 4.0
    with elapsed.paused():
        clock[0] += 100.0
    state.global_step = 1
    elapsed.on_step_end(args, state, control)
    assert elapsed.seconds == 4.0 and elapsed.why_over() is None
    state.stateful_callbacks = {"Elapsed": elapsed.state()}
    clock[0] += 50.0  # lost: the process ends before the next checkpoint
    resumed = Elapsed(10.0)
    resumed.on_train_begin(args, state, control)
    clock[0] += 6.0
    state.global_step = 2
    resumed.on_step_end(args, state, control)
    assert resumed.seconds == 10.0 and control.should_training_stop and control.should_save
    assert resumed.why_over() == "has trained 10 of 10 seconds"


def test_without_a_limit_it_only_counts(clock: list[float]):
    elapsed, state, control = Elapsed(), TrainerState(), TrainerControl()
    args: Any = TrainingArguments("out")
    elapsed.on_train_begin(args, state, control)
    clock[0] += 1e6
    state.global_step = 1
    elapsed.on_step_end(args, state, control)
    assert elapsed.seconds == 1e6 and not control.should_training_stop
