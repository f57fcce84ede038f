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


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"kl_in": "loss", "kl_estimator": "k2", "max_steps": 300},
        {"kl_in": "loss", "kl_estimator": "full", "max_steps": 300},
        {"policy_loss": "reinforce", "num_ppo_epochs": 1},
    ],
    ids=["k2", "full", "reinforce"],
)
def test_other_forms_reach_it_too(tmp_path: Path, changes: dict[str, Any]):
    assert run_ppo(tmp_path, 0, **changes).distances[-1] < 0.05
