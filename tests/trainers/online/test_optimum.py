"""Online DPO and IPO end where theory says, computed exactly on a toy language; see docs/how-to/online-dpo.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainers.closed_form import (
    BETA,
    TAU,
    distribution,
    nash_optimum,
    policy_model,
    policy_of,
    run_online,
    total_variation,
    win_probabilities,
)
from tests.trainers.toy import toy_mdp


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_soft_labels_lead_to_the_optimum(tmp_path: Path, loss_type: str, seed: int):
    course = run_online(tmp_path, seed, loss_type=loss_type)
    assert course.distances[0] > 0.15
    assert course.distances[-1] < 0.05


@pytest.mark.slow
def test_hard_labels_have_no_optimum_and_go_on_to_the_best_response(tmp_path: Path):
    course = run_online(tmp_path, 0, labels="hard", max_steps=200)
    rewards = toy_mdp(2).rewards()
    best = rewards == rewards.max()
    assert float(course.end[best].sum()) > 0.9 > float(course.optimum[best].sum())


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_the_expected_gradient_vanishes_at_the_optimum(loss_type: str):
    """Pairs are drawn from the policy, and the draw itself has no gradient."""
    mdp = toy_mdp(2)
    reference, wins = distribution(mdp, policy_model(0)), win_probabilities(mdp)
    if loss_type == "ipo":
        optimum = nash_optimum(wins, reference, TAU)
    else:
        optimum = mdp.optimal_response_logps(policy_of(policy_model(0)), BETA)[0].exp().detach()
    assert float(optimum.sum()) == pytest.approx(1, abs=1e-9) and total_variation(optimum, reference) > 0.15

    def gradient(policy: torch.Tensor, labels: torch.Tensor) -> float:
        logits = policy.log().requires_grad_()
        h = logits.log_softmax(0) - reference.log()
        gap = h[:, None] - h
        if loss_type == "ipo":
            losses = [(sign * gap - 0.5 / TAU).square() for sign in (1, -1)]
        else:
            losses = [-torch.nn.functional.logsigmoid(sign * BETA * gap) for sign in (1, -1)]
        drawn = policy[:, None] * policy
        (slope,) = torch.autograd.grad((drawn * (labels * losses[0] + (1 - labels) * losses[1])).sum(), logits)
        return float(slope.abs().max())

    assert gradient(optimum, wins) < 1e-8
    assert gradient(reference, wins) > 1e-3
    assert gradient(optimum, (wins > 0.5).double()) > 1e-3, "hard labels have another optimum, or none"
