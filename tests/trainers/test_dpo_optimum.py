"""DPO and IPO converge to their theoretical optima on comparisons drawn from a known reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.closed_form import (
    distribution,
    ipo_optimum,
    policy_model,
    run_direct,
    total_variation,
    win_probabilities,
)
from tests.trainers.toy import toy_mdp

LOSSES = [
    pytest.param({"loss_type": "sigmoid"}, id="dpo", marks=pytest.mark.slow),
    pytest.param({"loss_type": "ipo"}, id="ipo", marks=pytest.mark.slow),
    pytest.param({"loss_type": "ipo", "ipo_reduction": "sum"}, id="ipo-sum", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("changes", LOSSES)
def test_direct_methods_reach_their_optimum(tmp_path: Path, changes: dict[str, Any], seed: int):
    course = run_direct(tmp_path, seed, **changes)
    assert course.distances[0] > 0.15
    assert course.distances[-1] < 0.05


@pytest.mark.parametrize("per_token", [True, False])
def test_the_ipo_optimum_is_where_the_expected_loss_is_least(per_token: bool):
    mdp, tau = toy_mdp(2), 0.2
    reference = distribution(mdp, policy_model(0))
    optimum = ipo_optimum(mdp, reference, tau, per_token=per_token)
    assert float(optimum.sum()) == pytest.approx(1, abs=1e-9)
    assert total_variation(optimum, reference) > 0.2
    wins, tokens = win_probabilities(mdp), mdp.mask().sum(1) if per_token else torch.ones(len(reference))
    logits = optimum.log().requires_grad_()
    g = (logits.log_softmax(0) - reference.log()) / tokens
    h = g[:, None] - g
    loss = wins * (h - 0.5 / tau).square() + (1 - wins) * (-h - 0.5 / tau).square()
    (gradient,) = torch.autograd.grad(loss.mean(), logits)
    assert gradient.abs().max() < 1e-9
