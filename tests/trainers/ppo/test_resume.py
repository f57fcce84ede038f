"""A run killed anywhere and resumed ends bitwise where an uninterrupted one does."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align.errors import UserError
from hf_align.rl.kl_controllers import FixedKLController, ProportionalKLController
from hf_align.trainers.ppo.rollout import Rollout
from tests.trainers.ppo.run import SAVE_EVERY, STEPS, KillAt, Killed, build
from tests.trainers.test_base import same_weights

KILLED = """
import gc, sys
gc.disable()  # imports create no garbage, and collecting takes a fifth of their time
from pathlib import Path
from tests.trainers.ppo.run import KillAt, build
build(Path(sys.argv[1]), int(sys.argv[2]), [KillAt(int(sys.argv[3]))]).train()
"""


SLOW, SOAK = pytest.mark.slow, pytest.mark.soak
# Odd seeds train adapters. One of each kind, killed within a rollout; then other places; then every place.
CUTS = [
    pytest.param(0, 7, marks=SLOW),
    pytest.param(1, 5, marks=SLOW),
    *(pytest.param(seed, random.Random(seed).randrange(SAVE_EVERY + 1, STEPS), marks=SLOW) for seed in range(2, 6)),
    *(pytest.param(seed, step, marks=SOAK) for seed in range(6, 14) for step in range(SAVE_EVERY + 1, STEPS)),
]


@pytest.mark.parametrize(("seed", "step"), CUTS)
def test_a_killed_run_resumes_exactly(tmp_path: Path, seed: int, step: int):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), str(seed), str(step)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    ends_as_an_uninterrupted_one(tmp_path, seed)


def test_a_run_that_fails_in_a_rollout_resumes_exactly(tmp_path: Path):
    with pytest.raises(Killed):
        build(tmp_path / "cut", 0, [KillAt(7, process=False)]).train()
    ends_as_an_uninterrupted_one(tmp_path, 0)


@pytest.mark.parametrize("seed", [1, pytest.param(0, marks=SLOW)])
def test_a_run_without_values_resumes_exactly_and_only_as_one(tmp_path: Path, seed: int):
    changes: dict[str, Any] = {"baseline": "group", "group_scaling": True, "kl_in": "terminal"}
    with pytest.raises(Killed):
        build(tmp_path / "cut", seed, [KillAt(7, process=False)], **changes).train()
    assert (tmp_path / "cut" / "checkpoint-6" / "rollout_0.safetensors").exists(), "it was killed within a rollout"
    with pytest.raises(
        UserError,
        match=r"trained with baseline 'group', not 'value'; .* give the same or start anew in another output_dir\.$",
    ):
        build(tmp_path / "cut", seed).train(resume_from_checkpoint=True)
    ends_as_an_uninterrupted_one(tmp_path, seed, **changes)


def test_a_run_with_values_resumes_only_as_one(tmp_path: Path):
    trainer = build(tmp_path, 0, max_steps=SAVE_EVERY)
    trainer.train()
    path = tmp_path / f"checkpoint-{SAVE_EVERY}" / "ppo_state.json"
    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "baseline"}
    for state in (json.loads(path.read_text()), older):
        path.write_text(json.dumps(state))
        with pytest.raises(UserError, match="trained with baseline 'value', not 'group'"):
            build(tmp_path, 0, baseline="group").train(resume_from_checkpoint=True)


def ends_as_an_uninterrupted_one(tmp_path: Path, seed: int, **changes: Any) -> None:
    """Assert that the run in `cut`, resumed, has the weights and states of one that nothing stopped."""
    whole = build(tmp_path / "whole", seed, **changes)
    whole.train()
    resumed = build(tmp_path / "cut", seed, **changes)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == STEPS
    same_weights(whole.model, resumed.model, atol=0, rtol=0)
    assert resumed.kl_controller.state_dict() == whole.kl_controller.state_dict()
    assert resumed.score_statistics.state_dict() == whole.score_statistics.state_dict()
    trained = [name for name, parameter in whole.model.named_parameters() if parameter.requires_grad]
    assert trained == [name for name, parameter in resumed.model.named_parameters() if parameter.requires_grad]


def test_a_rollout_is_saved_whole(tmp_path: Path):
    rollout = Rollout(
        prompt_ids=[[1, 2], [1, 2], [3]],
        response_ids=[[4], [5, 6], [7, 8, 9]],
        finished=torch.tensor([True, False, True]),
        scores=torch.tensor([0.5, -1.0, 2.0]),
        num_samples=1,
        kl_coef=0.1,
        stopped=True,
    )
    rollout.tokens = {name: rollout.spread(torch.arange(6.0) + place) for place, name in enumerate(Rollout.PER_TOKEN)}
    rollout.save(tmp_path / "rollout.safetensors")
    again = Rollout.load(tmp_path / "rollout.safetensors")
    assert (again.prompt_ids, again.response_ids) == (rollout.prompt_ids, rollout.response_ids)
    assert (again.num_samples, again.kl_coef, again.stopped) == (1, 0.1, True)
    assert torch.equal(again.scores, rollout.scores) and torch.equal(again.finished, rollout.finished)
    for name in Rollout.PER_TOKEN:
        assert torch.equal(again.tokens[name], rollout.tokens[name])
    assert again.flat("values", slice(1, 3)).tolist() == [3.0, 4.0, 5.0, 6.0, 7.0]


def test_another_batch_arithmetic_is_refused_when_resuming(tmp_path: Path):
    trainer = build(tmp_path, 0)
    trainer.args.max_steps = SAVE_EVERY
    trainer.train()
    other = build(tmp_path, 0)
    other.args.num_ppo_epochs = 3
    with pytest.raises(UserError, match="trained with num_ppo_epochs 2, not 3"):
        other.train(resume_from_checkpoint=True)
    (tmp_path / f"checkpoint-{SAVE_EVERY}" / "ppo_state.json").unlink()
    with pytest.raises(UserError, match=r"the newest, checkpoint-3, is broken: ppo_state\.json is missing"):
        build(tmp_path, 0).train(resume_from_checkpoint=True)
    (tmp_path / f"checkpoint-{SAVE_EVERY}" / "resume.json").unlink()  # an earlier version's
    with pytest.raises(UserError, match="is not a checkpoint of PPO"):
        build(tmp_path, 0).train(resume_from_checkpoint=True)


def test_the_kl_controller_goes_on_as_it_was_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    trainer = build(tmp_path, 0)
    trainer.args.max_steps = SAVE_EVERY
    trainer.train()
    saved = trainer.kl_controller.state_dict()
    other = build(tmp_path, 0)
    other.args.max_steps = SAVE_EVERY
    other.kl_controller = ProportionalKLController(0.3, saved["target"] + 1.0, saved["horizon"])
    with caplog.at_level("WARNING", logger="hf_align"):
        other.train(resume_from_checkpoint=True)
    assert other.kl_controller.state_dict() == saved
    assert f"target {saved['target']:g}, not {saved['target'] + 1:g}" in caplog.text
    other = build(tmp_path, 0)
    other.kl_controller = FixedKLController(0.3)
    with pytest.raises(UserError, match="saved with another kl_controller"):
        other.train(resume_from_checkpoint=True)


def test_checkpoints_hold_no_rollout_where_none_is_needed(tmp_path: Path):
    trainer = build(tmp_path, 0)
    trainer.train()
    names = {path.name: {file.name for file in path.iterdir()} for path in tmp_path.glob("checkpoint-*")}
    assert "rollout_0.safetensors" in names["checkpoint-9"]
    assert "rollout_0.safetensors" not in names["checkpoint-12"], "a new rollout comes next"
    state = json.loads((tmp_path / "checkpoint-12" / "ppo_state.json").read_text())
    assert state["kl_controller"]["coef"] == trainer.kl_controller.coef
