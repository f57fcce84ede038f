"""Advantages without a value head, compared with numbers worked out by hand, and runs that never make one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor

from hf_align.errors import UserError
from hf_align.model_cards.collect import collect_facts
from hf_align.models.policy import PolicyModel
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.experience import add_advantages
from hf_align.trainers.ppo.rollout import ValuelessRollout
from tests.trainers.pairs import options
from tests.trainers.ppo.run import build

SHAPE: dict[str, Any] = {"per_device_train_batch_size": 4, "num_samples": 2}
SCORES = torch.tensor([2.0, 1.0, 0.0, 3.0])
KL = [[0.5, 0.5], [1.0], [0.0, 0.0, 0.0], [0.5, 0.0, -0.5]]
"""k1 of each token of four responses, two to each of two prompts."""


def advantages_of(out: Path, **changes: Any) -> tuple[Tensor, Tensor]:
    """Advantages and rewards `[4, 3]` of the responses, at a KL coefficient of 0.2."""
    rollout = ValuelessRollout(
        prompt_ids=[[1], [1], [1, 1], [1, 1]],
        response_ids=[[2] * len(each) for each in KL],
        finished=torch.ones(4, dtype=torch.bool),
        scores=SCORES,
        num_samples=2,
        kl_coef=0.2,
    )
    rollout.tokens["old_logps"] = rollout.spread(torch.tensor([kl for each in KL for kl in each]))
    rollout.tokens["ref_logps"] = torch.zeros(rollout.mask.shape)
    config = PPOConfig(**options(out, **{**SHAPE, "baseline": "group", **changes}))
    rewards = add_advantages(rollout, SCORES, config, Accelerator(cpu=True))
    assert rollout.tokens.keys() == {"old_logps", "ref_logps", "advantages"}, "neither values nor returns"
    return rollout.tokens["advantages"], rewards


def same(left: Tensor, right: Sequence[Sequence[float]]) -> None:
    torch.testing.assert_close(left, torch.tensor(right))


def test_the_kl_is_part_of_a_groups_returns(tmp_path: Path):
    # Returns are scores minus 0.2 x KL: 1.8, 0.8; 0, 3. Each minus the other's goes to all tokens.
    expected = [[1.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [-3.0, -3.0, -3.0], [3.0, 3.0, 3.0]]
    by_token, rewards = advantages_of(tmp_path)
    same(by_token, expected)
    same(rewards, [[-0.1, 1.9, 0.0], [0.8, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.1, 0.0, 3.1]])
    terminal, rewards = advantages_of(tmp_path, kl_in="terminal")
    same(terminal, expected)
    same(rewards, [[0.0, 1.8, 0.0], [0.8, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])


def test_a_kl_in_the_loss_is_none_of_them(tmp_path: Path):
    same(advantages_of(tmp_path, kl_in="loss")[0], [[1.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [-3.0] * 3, [3.0] * 3])


def test_a_discount_is_on_the_whole_response(tmp_path: Path):
    # With gamma = 0.5: -.1 + .95, .8; 0, -.1 + .775.
    expected = [[0.05, 0.05, 0.0], [-0.05, 0.0, 0.0], [-0.675] * 3, [0.675] * 3]
    same(advantages_of(tmp_path, gamma=0.5)[0], expected)


def test_group_scaling_divides_by_the_deviation(tmp_path: Path):
    # The deviation (n - 1) of two numbers is their difference over the root of 2.
    first, second = 1 / (0.5**0.5 + 1e-4), 3 / (3 * 0.5**0.5 + 1e-4)
    expected = [[first, first, 0.0], [-first, 0.0, 0.0], [-second] * 3, [second] * 3]
    same(advantages_of(tmp_path, group_scaling=True)[0], expected)


def test_without_a_baseline_advantages_are_the_returns(tmp_path: Path):
    expected = [[0.85, 1.9, 0.0], [0.8, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.1 + 0.25 * 3.1, 1.55, 3.1]]
    same(advantages_of(tmp_path, baseline="none", gamma=0.5)[0], expected)


def test_whitening_over_the_rollout_or_each_response(tmp_path: Path):
    changes: dict[str, Any] = {"baseline": "none", "gamma": 0.5}
    plain = advantages_of(tmp_path, **changes)[0]
    rows = [plain[0, :2], plain[1, :1], plain[2], plain[3]]
    everything = torch.cat(rows)
    whitened = torch.cat([(row - everything.mean()) / everything.std() for row in rows])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]]).bool()
    torch.testing.assert_close(advantages_of(tmp_path, whiten_advantages=True, **changes)[0][mask], whitened)
    each = advantages_of(tmp_path, whiten_advantages="trajectory", **changes)[0]
    torch.testing.assert_close(each[0, :2], (rows[0] - rows[0].mean()) / rows[0].std())
    torch.testing.assert_close(each[3], (rows[3] - rows[3].mean()) / rows[3].std())
    assert not each[1:3].any(), "one token, or returns that are all equal"


def test_defaults_follow_the_choices(tmp_path: Path):
    def made(**changes: Any) -> PPOConfig:
        return PPOConfig(**options(tmp_path, **{**SHAPE, **changes}))

    assert (made().num_ppo_epochs, made(policy_loss="reinforce").num_ppo_epochs) == (4, 1)
    whitens = [made(baseline=baseline).whiten_advantages for baseline in ("value", "group", "none")]
    assert whitens == [True, False, False]
    assert made(baseline="group", whiten_advantages=True).whiten_advantages is True
    assert made(kl_in="terminal").kl_kind == "k1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "group", "num_samples": 1}, "num_samples is 1; set it to 2 or more"),
        ({"group_scaling": True}, "group_scaling is for baseline='group', not for 'value'"),
        ({"baseline": "group", "value_learning_rate": 1e-3}, "value_learning_rate is 0.001, and with baseline='group'"),
        ({"baseline": "none", "value_model": "separate"}, "value_model is 'separate'"),
        ({"baseline": "none", "value_clip_range": None}, "value_clip_range is None"),
        ({"baseline": "group", "lam": 1.0}, "lam is 1.0, and with baseline='group' there are no values"),
        ({"baseline": "group", "value_init": "reward"}, "value_init is 'reward'"),
        ({"policy_loss": "reinforce", "num_ppo_epochs": 2}, "num_ppo_epochs is 2, and policy_loss='reinforce'"),
        ({"policy_loss": "reinforce", "clip_range": 0.1}, "clip_range is 0.1, and.*has no ratio"),
        ({"policy_loss": "reinforce", "num_mini_batches": 2}, "num_mini_batches is 2.*older policy.*ratio"),
        ({"kl_in": "terminal", "kl_estimator": "k3"}, "'k3' doesn't add up.*use 'k1'"),
        ({"kl_in": "terminal", "kl_estimator": "full"}, "'full' doesn't add up.*use 'k1'"),
        ({"baseline": "group", "gamma": 0.9, "whiten_advantages": "trajectory"}, "would take the score away"),
        ({"baseline": "none", "whiten_advantages": "trajectory"}, "would take the score away"),
        ({"lam": 1.0, "whiten_advantages": "trajectory"}, "would take the score away"),
        ({"whiten_advantages": "batch"}, "must be True, False or 'trajectory' or None"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        PPOConfig(**options(tmp_path, **{**SHAPE, **changes}))


def test_a_run_without_values_makes_saves_logs_and_shows_none(tmp_path: Path):
    trainer = build(tmp_path, 1, baseline="group", entropy_coef=0.01, max_steps=4, kl_in="loss", kl_estimator="full")
    trainer.train()
    trainer.save_model()
    assert type(trainer.model) is PolicyModel and "value" not in cast(PeftModel, trainer.model.model).peft_config
    assert not [name for name, _ in trainer.model.named_parameters() if "value" in name.split(".")]
    assert not [path for path in tmp_path.rglob("*") if "value" in path.name]
    logged = {name for log in trainer.state.log_history for name in log}
    assert not [name for name in logged if name.startswith("val/") or "value" in name]
    assert {"loss/policy_avg", "policy/approxkl_avg", "objective/rlhf_reward"} <= logged
    assert trainer.rollout is not None and trainer.rollout.tokens.keys() == set(ValuelessRollout.PER_TOKEN)
    facts = collect_facts(trainer)
    assert (facts.kind, facts.method, facts.value_head) == ("ppo", "RLOO", None)
    assert not [name for name in facts.hyperparameters if name.startswith("value") or name == "lam"]


def test_a_group_is_never_divided(tmp_path: Path):
    # Mini-batches of 4 and micro-batches of 2 divide a prompt's six samples; advantages are of the whole rollout.
    shape: dict[str, Any] = {"num_samples": 6, "per_device_train_batch_size": 2, "num_mini_batches": 3}
    trainer = build(tmp_path, 0, baseline="group", max_steps=1, kl_in="loss", scale_rewards=False, **shape)
    trainer.train()
    rollout = trainer.rollout
    assert rollout is not None and len(rollout.prompt_ids) == 12
    for start in (0, 6):
        group = slice(start, start + 6)
        assert all(ids == rollout.prompt_ids[start] for ids in rollout.prompt_ids[group])
        for number in range(start, start + 6):
            others = [rollout.scores[each] for each in range(start, start + 6) if each != number]
            expected = rollout.scores[number] - torch.stack(others).mean()
            row = rollout.tokens["advantages"][number][rollout.mask[number]]
            torch.testing.assert_close(row, expected.expand_as(row))
