"""PPO's fixed point is known: pi_ref * exp(r / beta) / Z. On a toy language it is computed exactly and reached."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from hf_align.trainers.ppo import PPOTrainer
from hf_align.trainers.ppo_config import PPOConfig
from tests.trainers.pairs import options
from tests.trainers.toy import policy_of, prompts, toy_mdp, toy_model, toy_reward, toy_tokenizer

LENGTH, BETA = 2, 0.5


def distances(out: Path, seed: int, **changes: Any) -> tuple[float, float]:
    """Total variation from the optimum over all responses, before and after training."""
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 128,
        "num_samples": 64,
        "max_new_tokens": LENGTH,
        "max_steps": 150,
        "num_ppo_epochs": 2,
        "kl_coef": BETA,
        "kl_controller": "fixed",
        "whiten_advantages": False,  # at the optimum advantages vanish, unless they are scaled up to variance 1
        "value_clip_range": None,
        "value_coef": 0.5,
        "lam": 1.0,
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "logging_steps": 50,
        "seed": seed,
    }
    model, mdp = toy_model(seed, hidden_size=64), toy_mdp(LENGTH)  # wide enough to be the optimum
    reference = policy_of(copy.deepcopy(model))
    optimum, _ = mdp.optimal_response_logps(reference, BETA)

    def distance() -> float:
        return float(0.5 * (mdp.response_logps(policy_of(model)).exp() - optimum.exp()).abs().sum())

    before = distance()
    PPOTrainer(
        model,
        args=PPOConfig(**options(out, **{**settings, **changes})),
        train_dataset=prompts(2),
        processing_class=toy_tokenizer(),
        reward=toy_reward(LENGTH),
    ).train()
    return before, distance()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ppo_reaches_the_optimum(tmp_path: Path, seed: int):
    before, after = distances(tmp_path, seed)
    assert before > 0.3
    assert after < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["k2", "full"])
def test_a_kl_in_the_loss_reaches_it_too(tmp_path: Path, estimator: str):
    _, after = distances(tmp_path, 0, kl_in="loss", kl_estimator=estimator)
    assert after < 0.05


@pytest.mark.slow
def test_reinforce_reaches_it_too(tmp_path: Path):
    _, after = distances(tmp_path, 0, policy_loss="reinforce", num_ppo_epochs=1)
    assert after < 0.05
