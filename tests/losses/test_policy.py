"""Policy-gradient losses compared with numbers computed by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_align.losses import entropy_from_logits, ppo_clip_loss, reinforce_loss, value_loss

MASK = torch.tensor([[True, True, False], [True, False, False]])
NAN = math.nan


def log_of(ratios: list[list[float]]) -> Tensor:
    return torch.tensor(ratios).log()


def test_ppo_clips_by_hand() -> None:
    # ratio, advantage -> min(r * A, clip(r) * A): 1.5, +2 -> 2.4; 0.5, -1 -> -0.8; 1.5, -2 -> -3
    logps = log_of([[1.5, 0.5, NAN], [1.5, NAN, NAN]]).requires_grad_()
    advantages = torch.tensor([[2.0, -1.0, NAN], [-2.0, NAN, NAN]])
    loss = ppo_clip_loss(logps, torch.zeros(2, 3), advantages, MASK, clip_range=0.2)
    assert loss.item() == pytest.approx(-(2.4 - 0.8 - 3.0) / 3, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logps)
    # Only the unclipped term has one: d(-r * A / 3) / d logp = -r * A / 3 = 1; NaN outside the mask stays outside.
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), atol=1e-6, rtol=0)


def test_ppo_at_the_rollout_policy_is_the_policy_gradient() -> None:
    gen = torch.Generator().manual_seed(0)
    logps = torch.randn(2, 3, generator=gen, requires_grad=True)
    advantages = torch.randn(2, 3, generator=gen)
    (ppo,) = torch.autograd.grad(ppo_clip_loss(logps, logps, advantages, MASK), logps)
    (reinforce,) = torch.autograd.grad(reinforce_loss(logps, advantages, MASK), logps)
    torch.testing.assert_close(ppo, reinforce)


def test_value_loss_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, NAN], [0.0, NAN, NAN]])
    old_values = torch.tensor([[0.0, 2.0, NAN], [0.0, NAN, NAN]])
    returns = torch.tensor([[2.0, 0.0, NAN], [3.0, NAN, NAN]])
    assert value_loss(values, old_values, returns, MASK).item() == pytest.approx(0.5 * (1 + 4 + 9) / 3)
    # The first value may move by 0.5 only: its error counts as (0.5 - 2)^2.
    clipped = value_loss(values, old_values, returns, MASK, clip_range=0.5)
    assert clipped.item() == pytest.approx(0.5 * (1.5**2 + 4 + 9) / 3)


def test_value_clip_keeps_the_larger_error() -> None:
    one = torch.ones(1, 1)
    # V moved from 0 to 3, past R = 1: the real error 4 is larger than the clipped one, (0.5 - 1)^2.
    assert value_loss(3 * one, 0 * one, one, one, clip_range=0.5).item() == pytest.approx(2.0)


def test_reinforce_by_hand() -> None:
    logps = torch.tensor([[-1.0, -2.0, NAN], [-3.0, NAN, NAN]], requires_grad=True)
    returns = torch.tensor([[2.0, 1.0, NAN], [-1.0, NAN, NAN]])
    loss = reinforce_loss(logps, returns, MASK)
    assert loss.item() == pytest.approx((2 + 2 - 3) / 3)
    (gradient,) = torch.autograd.grad(loss, logps)
    torch.testing.assert_close(gradient, torch.tensor([[-2.0, -1.0, 0.0], [1.0, 0.0, 0.0]]) / 3)


def test_nothing_flows_into_what_the_rollout_fixed() -> None:
    logps, constant = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    loss = ppo_clip_loss(logps, constant, constant, MASK) + reinforce_loss(logps, constant, MASK)
    (loss + value_loss(logps, constant, constant, MASK, clip_range=0.1)).backward()
    assert logps.grad is not None
    assert constant.grad is None


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("log_ratio", [1e4, -1e4])
def test_extreme_log_ratios_keep_loss_and_gradients_finite(log_ratio: float, advantage: float) -> None:
    logps = torch.full((1, 1), log_ratio, requires_grad=True)
    ones = torch.ones(1, 1)
    loss = ppo_clip_loss(logps, 0 * ones, advantage * ones, ones) + reinforce_loss(logps, advantage * ones, ones)
    loss = loss + value_loss(logps, 0 * ones, advantage * ones, ones, clip_range=0.2)
    (gradient,) = torch.autograd.grad(loss, logps)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_an_empty_mask_is_zero_loss_with_zero_gradient() -> None:
    logps = torch.randn(2, 3, requires_grad=True)
    empty = torch.zeros(2, 3, dtype=torch.bool)
    total = ppo_clip_loss(logps, logps, logps, empty) + value_loss(logps, logps, logps, empty)
    total = total + reinforce_loss(logps, logps, empty)
    total.backward()
    assert total.item() == 0.0
    assert logps.grad is not None
    assert not logps.grad.any()


def test_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3.0), 0.0, -math.inf, -math.inf], [1e4, 0.0, 0.0, -1e4]])
    expected = [math.log(4.0), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), 0.0]
    assert entropy_from_logits(logits).tolist() == pytest.approx(expected, abs=1e-6)


def test_entropy_gradient_is_finite_and_equals_autograd_of_the_definition() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    probs = logits.softmax(-1)
    (expected,) = torch.autograd.grad(-(probs * probs.log()).sum(), logits)
    (actual,) = torch.autograd.grad(entropy_from_logits(logits).sum(), logits)
    torch.testing.assert_close(actual, expected)
    ruled_out = torch.tensor([[0.0, 1.0, -math.inf], [1e4, -1e4, 0.0]], requires_grad=True)
    entropy_from_logits(ruled_out).sum().backward()
    assert ruled_out.grad is not None
    assert ruled_out.grad.isfinite().all()


@pytest.mark.parametrize("loss", [ppo_clip_loss, value_loss])
def test_clip_range_has_to_be_positive(loss: Any) -> None:
    with pytest.raises(ValueError, match="clip_range"):
        loss(*[torch.zeros(2, 3)] * 3, MASK, clip_range=0.0)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        reinforce_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3))
