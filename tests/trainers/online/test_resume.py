"""A run stopped anywhere, also within a rollout, and resumed ends bitwise where an uninterrupted one does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align.errors import UserError
from hf_align.trainers.online.rollout import PairRollout
from tests.trainers.online.run import SAVE_EVERY, STEPS, StopAt, Stopped, build
from tests.trainers.test_base import same_weights

KILLED = """
import gc, sys
gc.disable()  # imports create no garbage, and collecting takes a fifth of their time
from pathlib import Path
from tests.trainers.ppo.run import KillAt
from tests.trainers.online.run import build
build(Path(sys.argv[1]), int(sys.argv[2]), [KillAt(int(sys.argv[3]))]).train()
"""
SLOW = pytest.mark.slow


@cache
def uninterrupted(folder: Path, seed: int) -> Any:
    """The model and logs of a whole run."""
    trainer = build(folder, seed)
    trainer.train()
    return trainer.model, trainer.state.log_history


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


def compare(resumed: Any, folder: Path, seed: int) -> None:
    model, history = uninterrupted(folder / str(seed), seed)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == STEPS
    same_weights(model, resumed.model, atol=0, rtol=0)
    untimed = [{key: value for key, value in log.items() if "time" not in key} for log in history[:-1]]
    again = [{key: value for key, value in log.items() if "time" not in key} for log in resumed.state.log_history[:-1]]
    assert untimed == again


@pytest.mark.parametrize(
    ("seed", "step"),
    [
        pytest.param(1, 7),
        pytest.param(0, 5, marks=SLOW),
        *(pytest.param(seed, step, marks=SLOW) for seed in (2, 3) for step in range(SAVE_EVERY, STEPS)),
    ],
)
def test_a_stopped_run_resumes_exactly(tmp_path: Path, folder: Path, seed: int, step: int):
    with pytest.raises(Stopped):
        build(tmp_path, seed, [StopAt(step)]).train()
    compare(build(tmp_path, seed), folder, seed)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "step"), [(0, 7), (1, 5)])
def test_a_killed_run_resumes_exactly(tmp_path: Path, folder: Path, seed: int, step: int):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(seed), str(step)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    compare(build(tmp_path, seed), folder, seed)


def test_a_rollout_is_saved_whole(tmp_path: Path):
    rollout = PairRollout(
        prompt_ids=[[1, 2], [1, 2], [3], [3]],
        response_ids=[[4], [5, 6], [7, 8, 9], [7]],
        finished=torch.tensor([True, False, True, True]),
        scores=torch.tensor([0.5, -1.0, 2.0, 0.0]),
        num_samples=2,
        pairs=torch.tensor([[3, 2]]),
        labels=torch.tensor([0.75]),
    )
    rollout.tokens = {name: rollout.spread(torch.arange(7.0) + n) for n, name in enumerate(PairRollout.PER_TOKEN)}
    rollout.save(tmp_path / "rollout.safetensors")
    again = PairRollout.load(tmp_path / "rollout.safetensors")
    assert torch.equal(again.pairs, rollout.pairs) and torch.equal(again.labels, rollout.labels)
    assert (again.prompt_ids, again.response_ids, again.num_samples) == (rollout.prompt_ids, rollout.response_ids, 2)
    assert all(torch.equal(again.tokens[name], rollout.tokens[name]) for name in PairRollout.PER_TOKEN)
    assert again.used(slice(0, 2)) == [0, 1], "without a pair, two responses stand in"
    assert again.used(slice(2, 4)) == [2, 3] and again.pairs_of(slice(0, 2)).tolist() == [False]


def test_checkpoints_of_other_arithmetic_or_methods_are_refused(tmp_path: Path):
    trainer = build(tmp_path, 0)
    trainer.args.max_steps = SAVE_EVERY
    trainer.train()
    state = json.loads((tmp_path / f"checkpoint-{SAVE_EVERY}" / "online_state.json").read_text())
    assert state["shape"]["num_epochs"] == 2
    other = build(tmp_path, 0)
    other.args.num_epochs = 3
    with pytest.raises(UserError, match="trained with num_epochs 2, not 3"):
        other.train(resume_from_checkpoint=True)
    (tmp_path / f"checkpoint-{SAVE_EVERY}" / "resume.json").unlink()  # names its files
    (tmp_path / f"checkpoint-{SAVE_EVERY}" / "online_state.json").rename(
        tmp_path / f"checkpoint-{SAVE_EVERY}" / "ppo_state.json"
    )
    with pytest.raises(UserError, match="is a checkpoint of PPO; name one of online DPO or IPO"):
        build(tmp_path, 0).train(resume_from_checkpoint=True)
