"""Runs side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hf_align.tracking import Run, RunRecord, read_runs
from hf_align.tracking.compare import course, differences, figure_of, headline, labels, seconds_of


def made(folder: Path, algorithm: str = "dpo", config: Any = None, **metrics: list[float]) -> Run:
    """A recorded run with these values of steps 1, 2, ..."""
    with RunRecord.start(folder, algorithm, config=config, data={"train": {"fingerprint": "a"}}) as record:
        session = record.session(prefix=algorithm)
        for name, values in metrics.items():
            for step, value in enumerate(values, 1):
                session.log(step, {name: value})
        session.end("finished")
    return read_runs(folder)[-1]


@pytest.mark.parametrize(
    ("config", "metrics", "name", "step"),
    [
        ({}, {"loss": [3.0, 1.0, 2.0]}, "loss", 2),
        ({}, {"loss": [1.0], "eval_loss": [5.0, 4.0]}, "eval_loss", 2),
        ({}, {"eval_loss": [1.0], "eval_accuracy": [0.9, 0.5]}, "eval_accuracy", 1),
        ({"metric_for_best_model": "loss"}, {"eval_loss": [2.0, 3.0], "eval_accuracy": [0.9]}, "eval_loss", 1),
        (
            {"metric_for_best_model": "eval_kl", "greater_is_better": True},
            {"eval_kl": [2.0, 3.0]},
            "eval_kl",
            2,
        ),
    ],
)
def test_what_sums_a_run_up(config: dict[str, Any], metrics: Any, name: str, step: int, tmp_path: Path):
    figure = headline(made(tmp_path, config=config, **metrics))
    assert figure is not None and figure.point is not None
    assert (figure.name, figure.point.step, figure.is_best) == (name, step, True)


def test_a_metric_without_a_direction_shows_its_last_value(tmp_path: Path):
    run = made(tmp_path, kl=[3.0, 1.0, 2.0], loss=[math.nan])
    assert figure_of(run, "kl").point == run.metrics("kl")[-1] and not figure_of(run, "kl").is_best
    nothing = figure_of(run, "loss")
    assert nothing.point is not None and math.isnan(nothing.point.value) and not nothing.is_best
    assert figure_of(run, "other").point is None and headline(made(tmp_path / "empty")) is None


def test_only_what_differs_is_shown(tmp_path: Path):
    same = {"seed": 1, "lora": {"r": 8, "alpha": 16}}
    runs = [
        made(tmp_path / name, config={**same, "output_dir": name, "beta": beta, "lora": {"r": rank, "alpha": 16}})
        for name, beta, rank in (("a", 0.1, 8), ("b", 0.5, 4))
    ]
    assert differences(runs) == {"beta": [0.1, 0.5], "lora.r": [8, 4]}
    other = made(tmp_path / "c", "ppo", config={"beta": 0.1, "gamma": 1.0})
    assert differences([runs[0], other]) == {"algorithm": ["dpo", "ppo"]}


def test_labels_are_short_and_tell_runs_apart(tmp_path: Path):
    for folder in ("x/one", "x/two/deep"):
        made(tmp_path / folder)
    made(tmp_path / "x/one")
    assert labels(read_runs(tmp_path)) == ["one#1", "two/deep", "one#2"]
    assert labels(read_runs(tmp_path / "x/two")) == ["deep"]


def test_stages_follow_each_other_in_curves(tmp_path: Path):
    record = RunRecord.start(tmp_path, "hybrid")
    for stage, prefix, steps in (("1-dpo", "dpo", 3), ("2-ppo", "ppo", 2)):
        session = record.session(stage, prefix=prefix)
        for step in range(1, steps + 1):
            session.log(step, {"loss": float(step), f"only_{prefix}": 0.0})
        session.end("finished")
    record.end("finished")
    [run] = read_runs(tmp_path)
    assert course(run, "loss") == [(1, 1), (2, 2), (3, 3), (4, 1), (5, 2)]
    assert course(run, "only_ppo") == [(4, 0), (5, 0)]
    assert 0 <= seconds_of(run) < 60


def test_the_time_after_a_kill_is_no_training_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record, clock = RunRecord.start(tmp_path, "dpo"), [0.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    for begins, logs, end in ((100.0, 110.0, None), (5000.0, 5020.0, 5030.0)):
        clock[0] = begins
        session = record.session(prefix="dpo")
        clock[0] = logs
        session.log(1, {"loss": 1.0})
        if end is not None:
            clock[0] = end
            session.end("finished")
    record.end("finished")
    [run] = read_runs(tmp_path)
    assert seconds_of(run) == 10 + 30
