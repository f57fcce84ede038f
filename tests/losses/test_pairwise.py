"""Reward-model losses compared with numbers computed by hand and with TRL's RewardTrainer."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.reward_trainer import RewardTrainer

from hf_align.errors import UserError
from hf_align.losses import bradley_terry_loss, ranking_loss

CHOSEN = torch.tensor([2.0, -1.0, 0.5])
REJECTED = torch.tensor([1.0, 1.0, 0.5])
MARGIN = torch.tensor([0.5, 2.0, 0.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def trl_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | None) -> Tensor:
    """The loss of TRL's RewardTrainer for a model with these scores of chosen and rejected."""

    class Model:
        training = True

        def __call__(self, **_: Any) -> SimpleNamespace:
            return SimpleNamespace(logits=torch.cat([chosen, rejected])[:, None])

    trainer = SimpleNamespace(
        model=Model(),
        args=SimpleNamespace(center_rewards_coefficient=None),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"attention_mask": torch.ones(6, 2)} | ({} if margin is None else {"margin": margin})
    stub: Any = trainer
    loss = RewardTrainer.compute_loss(stub, stub.model, inputs)
    assert isinstance(loss, Tensor)
    return loss


@pytest.mark.parametrize("margin", [None, MARGIN], ids=["plain", "margin"])
def test_shift_equals_trl(margin: Tensor | None) -> None:
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    theirs = trl_loss(chosen, rejected, margin)
    ours = bradley_terry_loss(chosen, rejected, margin=margin, margin_mode="shift").mean()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    into = (chosen, rejected)
    torch.testing.assert_close(torch.autograd.grad(ours, into), torch.autograd.grad(theirs, into), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [  # d = 1, -2, 0 and m = 0.5, 2, 0
        ("weight", [0.5 * softplus(-1.0), 2.0 * softplus(2.0), 0.0]),
        ("scale", [softplus(-0.5), softplus(4.0), math.log(2.0)]),
        ("shift", [softplus(-0.5), softplus(4.0), math.log(2.0)]),
        ("none", [softplus(-1.0), softplus(2.0), math.log(2.0)]),
    ],
)
def test_margin_modes_by_hand(mode: Any, expected: list[float]) -> None:
    losses = bradley_terry_loss(CHOSEN, REJECTED, margin=MARGIN, margin_mode=mode)
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)


def test_weight_is_the_default_and_needs_no_margin() -> None:
    torch.testing.assert_close(
        bradley_terry_loss(CHOSEN, REJECTED, margin=3 * MARGIN), 3 * bradley_terry_loss(CHOSEN, REJECTED, margin=MARGIN)
    )
    plain = bradley_terry_loss(CHOSEN, REJECTED)
    assert plain.tolist() == pytest.approx([softplus(-1.0), softplus(2.0), math.log(2.0)], abs=1e-6)


def test_scale_and_shift_differ_where_the_margin_does_not_equal_its_square() -> None:
    chosen, rejected, margin = torch.tensor([3.0]), torch.tensor([0.0]), torch.tensor([2.0])
    scaled = bradley_terry_loss(chosen, rejected, margin=margin, margin_mode="scale")
    shifted = bradley_terry_loss(chosen, rejected, margin=margin, margin_mode="shift")
    assert (scaled.item(), shifted.item()) == pytest.approx((softplus(-6.0), softplus(-1.0)), abs=1e-6)


def test_hinge_by_hand() -> None:
    assert ranking_loss(CHOSEN, REJECTED).tolist() == [0.0, 3.0, 1.0]  # margin 1
    assert ranking_loss(CHOSEN, REJECTED, margin=0.0).tolist() == [0.0, 2.0, 0.0]
    assert ranking_loss(CHOSEN, REJECTED, margin=1.5).tolist() == [0.5, 3.5, 1.5]
    assert ranking_loss(CHOSEN, REJECTED, margin=MARGIN).tolist() == [0.0, 4.0, 0.0]


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf])
def test_bad_margins_are_refused_with_their_row(bad: float) -> None:
    margin = torch.tensor([1.0, bad, 1.0])
    with pytest.raises(UserError, match="row 1"):
        bradley_terry_loss(CHOSEN, REJECTED, margin=margin)
    with pytest.raises(UserError, match="margin"):
        ranking_loss(CHOSEN, REJECTED, margin=bad)
    with pytest.raises(UserError, match="margin"):
        bradley_terry_loss(CHOSEN[0], REJECTED[0], margin=torch.tensor(bad))


def test_a_margin_is_as_exact_as_the_loss_whatever_the_rewards_are() -> None:
    zeros = torch.zeros(2)
    for dtype in (torch.bfloat16, torch.int64):
        torch.testing.assert_close(ranking_loss(zeros.to(dtype), zeros.to(dtype), margin=0.1), zeros + 0.1)


def test_unknown_margin_mode_is_refused() -> None:
    mode: Any = "add"
    with pytest.raises(UserError, match="margin_mode"):
        bradley_terry_loss(CHOSEN, REJECTED, margin_mode=mode)


def test_scores_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="chosen_rewards"):
        bradley_terry_loss(CHOSEN[:, None], REJECTED)


@pytest.mark.parametrize("mode", ["weight", "scale", "shift", "none"])
def test_extreme_rewards_keep_gradients_finite(mode: Any) -> None:
    chosen = torch.tensor([1e4, -1e4], requires_grad=True)
    label = torch.tensor([0.75, 0.75])
    losses = bradley_terry_loss(chosen, -chosen.detach(), margin=torch.ones(2), margin_mode=mode)
    losses = losses + bradley_terry_loss(chosen, -chosen.detach(), margin=torch.ones(2), margin_mode=mode, label=label)
    losses = losses + ranking_loss(chosen, -chosen.detach(), label=label)
    (gradient,) = torch.autograd.grad(losses.sum(), chosen)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient[1] < 0


def test_sixteen_bit_rewards_are_computed_in_fp32() -> None:
    assert bradley_terry_loss(CHOSEN.half(), REJECTED.half(), margin=MARGIN).dtype == torch.float32


LABEL = torch.tensor([1.0, 0.25, 0.5])


def test_soft_labels_by_hand() -> None:
    # d = 1, -2, 0 and m = 0.5, 2, 0
    assert bradley_terry_loss(CHOSEN, REJECTED, label=LABEL).tolist() == pytest.approx(
        [softplus(-1.0), 0.25 * softplus(2.0) + 0.75 * softplus(-2.0), math.log(2.0)], abs=1e-6
    )
    shifted = bradley_terry_loss(CHOSEN, REJECTED, margin=MARGIN, margin_mode="shift", label=LABEL)
    assert shifted.tolist() == pytest.approx(
        [softplus(-0.5), 0.25 * softplus(4.0) + 0.75 * softplus(0.0), math.log(2.0)], abs=1e-6
    )
    assert ranking_loss(CHOSEN, REJECTED, label=LABEL).tolist() == [0.0, 0.25 * 3.0, 1.0]


@pytest.mark.parametrize("mode", ["weight", "scale", "shift", "none"])
def test_a_label_counts_the_pair_in_both_orders(mode: Any) -> None:
    options: Any = {"margin": MARGIN, "margin_mode": mode}
    first = bradley_terry_loss(CHOSEN, REJECTED, **options)
    second = bradley_terry_loss(REJECTED, CHOSEN, **options)
    torch.testing.assert_close(
        bradley_terry_loss(CHOSEN, REJECTED, label=LABEL, **options), LABEL * first + (1 - LABEL) * second
    )
    torch.testing.assert_close(bradley_terry_loss(CHOSEN, REJECTED, label=torch.ones(3), **options), first)
    torch.testing.assert_close(bradley_terry_loss(CHOSEN, REJECTED, label=torch.zeros(3), **options), second)
    smoothed = bradley_terry_loss(CHOSEN, REJECTED, label_smoothing=0.1, **options)
    torch.testing.assert_close(smoothed, 0.9 * first + 0.1 * second)
    torch.testing.assert_close(
        bradley_terry_loss(CHOSEN, REJECTED, label=LABEL, label_smoothing=0.1, **options),
        bradley_terry_loss(CHOSEN, REJECTED, label=0.9 * LABEL + 0.1 * (1 - LABEL), **options),
    )


def test_the_loss_of_a_soft_label_is_smallest_where_the_model_says_its_probability() -> None:
    d = torch.linspace(-6.0, 6.0, 1201, dtype=torch.float64)
    losses = bradley_terry_loss(d, torch.zeros_like(d), label=torch.full_like(d, 0.75))
    assert d[losses.argmin()].item() == pytest.approx(math.log(3.0), abs=0.01)
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert losses.min().item() == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize("mode", ["weight", "scale", "shift", "none"])
def test_gradients_with_soft_labels_equal_numeric_ones(mode: Any) -> None:
    torch.manual_seed(0)
    chosen, rejected, margin, label = torch.rand(4, 5, dtype=torch.float64).unbind()
    into = (chosen.requires_grad_(), rejected.requires_grad_())

    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        return bradley_terry_loss(
            chosen, rejected, margin=margin, margin_mode=mode, label=label, label_smoothing=0.05
        ) + ranking_loss(chosen, rejected, margin=margin, label=label)

    assert torch.autograd.gradcheck(loss, into)


@pytest.mark.parametrize("bad", [-0.1, 1.5, math.nan])
def test_bad_labels_are_refused_with_their_row(bad: float) -> None:
    label = torch.tensor([1.0, bad, 0.0])
    with pytest.raises(UserError, match=r"label must be the probability.*row 1"):
        bradley_terry_loss(CHOSEN, REJECTED, label=label)
    with pytest.raises(UserError, match=r"label must be the probability.*row 1"):
        ranking_loss(CHOSEN, REJECTED, label=label)
    with pytest.raises(UserError, match="label_smoothing"):
        bradley_terry_loss(CHOSEN, REJECTED, label_smoothing=0.5)
    with pytest.raises(ValueError, match="label"):
        bradley_terry_loss(CHOSEN, REJECTED, label=LABEL[:, None])
