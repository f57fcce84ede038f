"""Experience made with stand-ins for the models, compared with numbers computed by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from hf_align.layout.branches import Branches
from hf_align.rewards import Reward, as_reward
from hf_align.rl.running_statistics import RunningMeanStd
from hf_align.rollouts import Response
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.experience import collect
from hf_align.trainers.ppo.rollout import Rollout
from tests.trainers.pairs import options

ROWS = [{"prompt": "one", "prompt_ids": [1], "bonus": 0.0}, {"prompt": "two", "prompt_ids": [1, 1], "bonus": 1.0}]


def scored(prompts: list[str], responses: list[str], bonus: list[float]) -> list[float]:
    return [len(text.split()) - extra for text, extra in zip(responses, bonus, strict=True)]


@dataclass
class StandIns:
    """The first prompt gets tokens 2 3, ended, and the second 4 4 4, cut; log-probs are -token / 10."""

    reward: Reward = field(default_factory=lambda: as_reward(scored))
    calls: list[tuple[str, int, bool]] = field(default_factory=list)

    def sample(self, rows: list[dict[str, Any]], num_samples: int, seed: int) -> list[Response]:
        assert rows == ROWS and num_samples == 1
        return [Response(0, [2, 3], True, "b c"), Response(1, [4, 4, 4], False, "d d d")]

    def policy(self, branches: Branches) -> dict[str, Tensor]:
        self.calls.append(("policy", len(branches.targets), torch.is_grad_enabled()))
        logps = -torch.ones((), requires_grad=True) * branches.targets / 10
        return {"logps": logps, "values": branches.targets / 10, "entropy": torch.ones(len(logps))}

    def reference(self, branches: Branches) -> Tensor:
        """Half a nat per token less."""
        self.calls.append(("reference", len(branches.targets), torch.is_grad_enabled()))
        return -branches.targets / 10 - 0.5


def collected(out: Path, roles: StandIns, kept: int | None = None, **changes: Any) -> tuple[Rollout, dict[str, Tensor]]:
    """A rollout of one response a batch and its metrics, the first prompt's response first in both."""
    plain = {"lam": 1.0, "whiten_advantages": False, "missing_eos_penalty": 0.5}
    shape = {"per_device_train_batch_size": 1, "num_mini_batches": 2}
    rollout, metrics = collect(
        ROWS,
        0,
        PPOConfig(**options(out, **shape, **{**plain, **changes})),
        roles,
        kl_coef=0.2,
        statistics=RunningMeanStd(),
        accelerator=Accelerator(cpu=True),
        pad_token_id=0,
        kept_start=kept,
    )
    order = [rollout.response_ids.index(ids) for ids in ([2, 3], [4, 4, 4])]
    rollout.tokens = {name: tokens[order] for name, tokens in rollout.tokens.items()}
    return rollout, {name: metric[order] if len(metric) == 2 else metric for name, metric in metrics.items()}


def same(left: Tensor, right: list[Any]) -> None:
    torch.testing.assert_close(left, torch.tensor(right))


def test_experience_is_that_worked_out_by_hand(tmp_path: Path):
    rollout, metrics = collected(tmp_path, StandIns())
    tokens = rollout.tokens
    same(tokens["old_logps"], [[-0.2, -0.3, 0.0], [-0.4, -0.4, -0.4]])
    same(tokens["ref_logps"], [[-0.7, -0.8, 0.0], [-0.9, -0.9, -0.9]])
    # Scores 2 and 3 - 1, the cut response's less 0.5; each token's KL of 0.5 costs 0.1.
    # Rewards are [-0.1, 1.9] and [-0.1, -0.1, 1.4]; with lambda = gamma = 1 returns are the sums of what follows.
    same(tokens["returns"], [[1.8, 1.9, 0.0], [1.2, 1.3, 1.4]])
    same(tokens["advantages"], [[1.8 - 0.2, 1.9 - 0.3, 0.0], [1.2 - 0.4, 1.3 - 0.4, 1.4 - 0.4]])
    same(metrics["objective/scores"], [2.0, 2.0])
    same(metrics["objective/kl"], [1.0, 1.5])
    same(metrics["objective/rlhf_reward"], [1.8, 1.2])
    same(metrics["objective/entropy"], [2.0, 3.0])
    same(metrics["response/length"], [2.0, 3.0])
    same(metrics["response/eos_share"], [1.0, 0.0])
    same(metrics["kl_coef"], [0.2])
    returns, values = torch.tensor([1.8, 1.9, 1.2, 1.3, 1.4]), torch.tensor([0.2, 0.3, 0.4, 0.4, 0.4])
    explained = 1 - (returns - values).var(unbiased=False) / returns.var(unbiased=False)
    assert metrics["val/explained_variance"].item() == pytest.approx(explained.item(), abs=1e-5)
    assert not any(name.startswith("rewards/") for name in metrics), "of one reward there is nothing to tell apart"


def test_a_kl_in_the_loss_leaves_rewards_alone(tmp_path: Path):
    rollout, metrics = collected(tmp_path, StandIns(), kl_in="loss")
    same(rollout.tokens["returns"], [[2.0, 2.0, 0.0], [1.5, 1.5, 1.5]])
    same(metrics["objective/rlhf_reward"], [2.0, 1.5])


def test_the_reward_learns_which_responses_were_cut(tmp_path: Path):
    def ends(prompts: list[str], responses: list[str], finished: list[bool]) -> list[float]:
        return [1.0 if end else -1.0 for end in finished]

    _, metrics = collected(tmp_path, StandIns(as_reward(ends)))
    same(metrics["objective/scores"], [1.0, -1.0])


def test_several_rewards_are_logged_by_name(tmp_path: Path):
    def ones(prompts: list[str], responses: list[str]) -> list[float]:
        return [1.0] * len(prompts)

    _, metrics = collected(tmp_path, StandIns(as_reward([scored, (0.5, ones)])))
    same(metrics["objective/scores"], [2.5, 2.5])
    same(metrics["rewards/scored"], [2.0, 2.0])
    same(metrics["rewards/ones"], [1.0, 1.0])


def test_the_kept_batch_is_scored_last_and_with_gradients(tmp_path: Path):
    for kept in (0, 1):
        roles = StandIns()
        rollout, _ = collected(tmp_path, roles, kept)
        lengths = rollout.lengths.tolist()
        one, last = lengths[1 - kept], lengths[kept]
        assert roles.calls == [
            ("reference", one, False),
            ("policy", one, False),
            ("reference", last, False),
            ("policy", last, True),
        ]
        assert rollout.first_output is not None and rollout.first_output["logps"].requires_grad
        assert len(rollout.first_output["logps"]) == last
        assert not any(tokens.requires_grad for tokens in rollout.tokens.values())
    assert collected(tmp_path, StandIns())[0].first_output is None
