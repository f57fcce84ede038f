"""PPO reaches its fixed point, computed exactly on a toy language; see docs/closed-form.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainers.closed_form import BETA, LENGTH, grpo_optimum, policy_model, run_ppo, total_variation
from tests.trainers.toy import policy_of, toy_mdp


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_ppo_reaches_the_optimum(tmp_path: Path, seed: int):
    course = run_ppo(tmp_path, seed)
    assert course.distances[0] > 0.3
    assert course.distances[-1] < 0.05


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_rloo_reaches_it_closely(tmp_path: Path, seed: int):
    # At the optimum all responses have the same return, score minus KL: the advantages of a group are 0, without noise.
    course = run_ppo(
        tmp_path, seed, baseline="group", num_samples=8, policy_loss="reinforce", num_ppo_epochs=None, max_steps=60
    )
    assert course.distances[0] > 0.3
    assert course.distances[-1] < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"kl_in": "loss", "kl_estimator": "k2", "max_steps": 300},
        {"kl_in": "loss", "kl_estimator": "full", "max_steps": 300},
        {"kl_in": "terminal"},
        {"policy_loss": "reinforce", "num_ppo_epochs": None},
        {"policy_loss": "reinforce", "num_ppo_epochs": None, "baseline": "none", "max_steps": 300},
        {"baseline": "group", "num_samples": 8},
        {"baseline": "group", "num_samples": 2, "policy_loss": "reinforce", "num_ppo_epochs": None},
    ],
    ids=["k2", "full", "terminal", "reinforce", "no baseline", "group", "group of two"],
)
def test_other_forms_reach_it_too(tmp_path: Path, changes: dict[str, Any]):
    assert run_ppo(tmp_path, 0, **changes).distances[-1] < 0.05


@pytest.mark.slow
def test_grpo_rests_at_the_optimum_with_the_kl_in_the_return_and_elsewhere_with_it_in_the_loss(tmp_path: Path):
    grpo: dict[str, Any] = {"baseline": "group", "group_scaling": True}
    assert run_ppo(tmp_path / "reward", 0, num_samples=8, **grpo).distances[-1] < 0.05
    course = run_ppo(tmp_path / "loss", 0, num_samples=64, kl_in="loss", max_steps=300, **grpo)
    assert course.distances[-1] > 0.5
    mdp, reference = toy_mdp(LENGTH), policy_of(policy_model(0))
    assert total_variation(course.end, grpo_optimum(mdp, reference, BETA)) < 0.05
