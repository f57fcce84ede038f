"""PPO's updates on a handmade rollout, without sampling and rewards."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.rollout import Rollout
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.trainers.pairs import options
from tests.trainers.toy import EOS, prompts, toy_model, toy_tokenizer

PROMPT, GOOD, BAD = [1], [2, EOS], [3]
ADVANTAGES, RETURNS = [1.0, 2.0, -1.0], [1.0, 1.0, 0.0]  # of GOOD's two tokens and BAD's one
RATE = 0.05


def logps_of(model: Any) -> Tensor:
    """Log-probs of the three tokens by plain transformers."""
    rows = []
    for response in (GOOD, BAD):
        logits = model(input_ids=torch.tensor([[*PROMPT, *response]])).logits[0, :-1].log_softmax(-1)
        rows.append(logits[torch.arange(len(response)), torch.tensor(response)])
    return torch.cat(rows)


def rollout_by_hand(old_logps: Tensor) -> Rollout:
    rollout = Rollout(
        prompt_ids=[PROMPT, PROMPT],
        response_ids=[GOOD, BAD],
        finished=torch.tensor([True, False]),
        scores=torch.tensor([1.0, 0.0]),
        num_samples=2,
        kl_coef=0.0,
    )
    flat = {
        "old_logps": old_logps,
        "ref_logps": old_logps,
        "values": torch.zeros(3),
        "entropy": torch.zeros(3),
        "advantages": torch.tensor(ADVANTAGES),
        "returns": torch.tensor(RETURNS),
    }
    rollout.tokens = {name: rollout.spread(values) for name, values in flat.items()}
    return rollout


class Updates(PPOTrainer):
    """PPO on a given rollout."""

    given: Rollout

    def make_rollout(self, model: nn.Module, number: int) -> Rollout:
        return self.given

    def check_start(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        """No check: a rollout by hand may hold the log-probs of another policy."""


def no_reward(prompts: list[str], responses: list[str]) -> list[float]:
    pytest.fail("a reward was asked for")


def trained(out: Path, rollout: Rollout, **changes: Any) -> Updates:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "num_samples": 2,
        "num_ppo_epochs": 2,
        "max_new_tokens": 2,
        "max_steps": 1,
        "learning_rate": RATE,
        "max_grad_norm": 0,
        "value_coef": 0.1,
    }
    trainer = Updates(
        toy_model(),
        args=PPOConfig(**options(out, **{**settings, **changes})),
        train_dataset=prompts(1),
        processing_class=toy_tokenizer(),
        reward=no_reward,
    )
    trainer.given = rollout
    trainer.train()
    return trainer


@pytest.mark.parametrize("size", [2, 1], ids=["whole", "micro-batches"])
def test_a_step_moves_each_weight_by_the_gradient_worked_out_apart(tmp_path: Path, size: int):
    start = toy_model()
    old = logps_of(start)
    trainer = trained(
        tmp_path,
        rollout_by_hand(old.detach()),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=2 // size,
    )
    # At a ratio of 1 nothing is clipped: the policy's loss is -mean(A), its gradient that of -mean(A log p). Values
    # start at 0 from a head of zeros, so theirs is half the mean of R^2 and moves the head alone.
    log = trainer.state.log_history[0]
    assert log["loss/policy_avg"] == pytest.approx(-2 / 3 if size == 2 else -(1.5 * 2 - 1) / 3, abs=1e-6)
    assert log["loss"] == pytest.approx(-2 / 3 + 0.1 * 0.5 * 2 / 3, abs=1e-6)
    (-(torch.tensor(ADVANTAGES) * old).mean()).backward()
    for before, after in zip(start.parameters(), trainer.model.model.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(after.detach(), before.detach() - RATE * before.grad, atol=1e-6, rtol=1e-5)
    assert any(parameter.abs().max() > 0 for parameter in trainer.model.value_head.parameters())


def test_responses_become_likelier_by_their_advantage(tmp_path: Path):
    before = logps_of(toy_model()).detach()
    trainer = trained(tmp_path, rollout_by_hand(before), max_steps=2)
    gain = (logps_of(copy.deepcopy(trainer.model.model)) - before).tolist()
    assert gain[0] > 0.01 and gain[1] > 0.01 and gain[2] < -0.01
    first, second = trainer.state.log_history[:2]
    assert first["val/ratio"] == pytest.approx(1, abs=1e-6) and second["policy/approxkl_avg"] > 1e-5
    assert second["loss/policy_avg"] < first["loss/policy_avg"], "the same rollout, after a step"


def test_tokens_that_have_moved_beyond_the_clip_range_train_nothing(tmp_path: Path):
    # GOOD's tokens are more likely than before by a factor of e, BAD's less likely by as much: all beyond 1 +- 0.2.
    apart = logps_of(toy_model()).detach() - torch.tensor([1.0, 1.0, -1.0])
    trainer = trained(tmp_path, rollout_by_hand(apart), value_coef=0.0)
    for before, after in zip(toy_model().parameters(), trainer.model.model.parameters(), strict=True):
        torch.testing.assert_close(after.detach(), before.detach(), atol=0, rtol=0)
    assert trainer.state.log_history[0]["policy/clipfrac_avg"] == 1
