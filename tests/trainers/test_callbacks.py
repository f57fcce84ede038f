import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_align.cli.console import Screen
from hf_align.progress import Silent
from hf_align.trainers.callbacks import evaluate, train
from hf_align.trainers.checkpoints import last_checkpoint


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight * x - 1) ** 2).mean()}


class PressCtrlC(TrainerCallback):
    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def make_trainer(folder: Path, *callbacks: TrainerCallback) -> Trainer:
    rows = Dataset.from_dict({"x": [float(number) for number in range(1, 13)]})
    args = TrainingArguments(
        str(folder), max_steps=4, per_device_train_batch_size=2, per_device_eval_batch_size=4, save_strategy="no",
        use_cpu=True, learning_rate=0.1, logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    return Trainer(Line(), args, train_dataset=rows, eval_dataset=rows, callbacks=list(callbacks))


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_ctrl_c_finishes_the_step_and_saves(tmp_path: Path, screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(make_trainer(tmp_path, PressCtrlC(1)), screen, "t")
    actual = last_checkpoint(tmp_path)
    assert actual is not None
    assert actual.name == "checkpoint-2"
    assert signal.getsignal(signal.SIGINT) is before


def test_resuming_gives_the_weights_of_an_unbroken_run(tmp_path: Path, screen: Screen) -> None:
    unbroken = make_trainer(tmp_path / "a")
    train(unbroken, screen, "t")
    with pytest.raises(KeyboardInterrupt):
        train(make_trainer(tmp_path / "b", PressCtrlC(1)), screen, "t")
    resumed = make_trainer(tmp_path / "b")
    train(resumed, screen, "t", checkpoint=last_checkpoint(tmp_path / "b"))
    assert resumed.state.global_step == 4
    assert resumed.model is not None
    assert unbroken.model is not None
    assert torch.equal(resumed.model.weight, unbroken.model.weight)  # type: ignore[arg-type]


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, screen: Screen) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(make_trainer(tmp_path, PressCtrlC(1, times=2)), screen, "t")
    assert last_checkpoint(tmp_path) is None


def test_last_checkpoint_counts_numbers_and_skips_half_written_ones(tmp_path: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-11", "checkpoint-x"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-11":
            (tmp_path / name / "trainer_state.json").write_text("{}")
    actual = last_checkpoint(tmp_path)
    assert actual is not None
    assert actual.name == "checkpoint-10"
    assert last_checkpoint(tmp_path / "none") is None


def test_evaluate_counts_its_batches(tmp_path: Path) -> None:
    moves: list[int] = []
    totals: list[int] = []

    class Counting(Silent):
        @contextmanager
        def task(self, label: str, total: int) -> Iterator[Callable[[int, str], None]]:
            totals.append(total)
            yield lambda done, note: moves.append(done)

    metrics = evaluate(make_trainer(tmp_path), Counting(), "held out")
    assert (totals, moves) == ([3], [1, 2, 3])
    assert "eval_runtime" in metrics


def test_a_run_off_a_terminal_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(make_trainer(tmp_path), Screen(), "t")
    assert capsys.readouterr().out == ""
