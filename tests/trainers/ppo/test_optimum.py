"""PPO reaches its fixed point, computed exactly on a toy language; see docs/closed-form.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainers.closed_form import run_ppo


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
