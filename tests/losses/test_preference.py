"""DPO and IPO compared with numbers computed by hand and with TRL's trainer code."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses import dpo_loss, ipo_loss
from tests.trl_losses import trl_loss

BETA = 0.3
LENGTHS = torch.tensor([[5, 3], [2, 6], [4, 4]])  # chosen, rejected


def logps() -> list[Tensor]:
    """chosen, rejected, ref_chosen, ref_rejected, each `[3]`."""
    gen = torch.Generator().manual_seed(0)
    return [(-10.0 * torch.rand(3, generator=gen)).requires_grad_() for _ in range(4)]


def assert_same_loss_and_gradients(ours: Tensor, theirs: Tensor, columns: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    into = columns[:2]
    torch.testing.assert_close(torch.autograd.grad(ours, into), torch.autograd.grad(theirs, into), atol=1e-6, rtol=0)


def test_sigmoid_equals_trl() -> None:
    columns = logps()
    theirs = trl_loss(columns, LENGTHS, "sigmoid", BETA)
    assert_same_loss_and_gradients(dpo_loss(*columns, beta=BETA).mean(), theirs, columns)


def test_label_smoothing_equals_trl() -> None:
    # TRL's "sigmoid" ignores label_smoothing; its "aot" has conservative DPO's formula on sorted columns, which for a
    # batch of one pair is conservative DPO.
    for row in range(3):
        columns = [column[row : row + 1] for column in logps()]
        theirs = trl_loss(columns, LENGTHS[row : row + 1], "aot", BETA, label_smoothing=0.2)
        assert_same_loss_and_gradients(dpo_loss(*columns, beta=BETA, label_smoothing=0.2).mean(), theirs, columns)


def test_length_normalised_sigmoid_equals_trl() -> None:
    columns = logps()
    theirs = trl_loss(columns, LENGTHS, "sigmoid_norm", BETA)
    by_token = [column / LENGTHS[:, index % 2] for index, column in enumerate(columns)]
    assert_same_loss_and_gradients(dpo_loss(*by_token, beta=BETA).mean(), theirs, columns)


def test_ipo_by_token_equals_trl() -> None:
    columns = logps()
    theirs = trl_loss(columns, LENGTHS, "ipo", BETA)
    ours = ipo_loss(*columns, beta=BETA, chosen_lengths=LENGTHS[:, 0], rejected_lengths=LENGTHS[:, 1])
    assert_same_loss_and_gradients(ours.mean(), theirs, columns)


def test_dpo_by_hand() -> None:
    # Log-ratios: 1 - 0 = 1 and -2 - 1 = -3, so h = 4, and beta * h = 2.
    columns = [torch.tensor([value]) for value in (1.0, -2.0, 0.0, 1.0)]
    low, high = math.log1p(math.exp(-2.0)), math.log1p(math.exp(2.0))
    assert dpo_loss(*columns, beta=0.5).item() == pytest.approx(low, abs=1e-6)
    smoothed = dpo_loss(*columns, beta=0.5, label_smoothing=0.25)
    assert smoothed.item() == pytest.approx(0.75 * low + 0.25 * high, abs=1e-6)


def test_dpo_is_log_two_where_policy_and_reference_agree() -> None:
    chosen, rejected = torch.tensor([-312.7, -1.3]), torch.tensor([-98.1, -44.4])
    for smoothing in (0.0, 0.1):
        losses = dpo_loss(chosen, rejected, chosen, rejected, label_smoothing=smoothing)
        torch.testing.assert_close(losses, torch.full((2,), math.log(2.0)), atol=1e-7, rtol=0)


def test_ipo_by_hand() -> None:
    columns = [torch.tensor([value]) for value in (1.0, -2.0, 0.0, 1.0)]  # log-ratios 1 and -3
    lengths = {"chosen_lengths": torch.tensor([2]), "rejected_lengths": torch.tensor([3])}  # means 0.5 and -1
    assert ipo_loss(*columns, beta=0.5, **lengths).item() == pytest.approx((1.5 - 1.0) ** 2)
    assert ipo_loss(*columns, beta=0.5).item() == pytest.approx((4.0 - 1.0) ** 2)
    assert ipo_loss(*columns, beta=0.5, target=1 / 0.5).item() == pytest.approx((4.0 - 2.0) ** 2)
    assert ipo_loss(*columns, target=0.0, **lengths).item() == pytest.approx(1.5**2)


def test_ipo_of_an_empty_response_is_finite() -> None:
    columns = [torch.tensor([value]) for value in (0.0, -2.0, 0.0, 1.0)]
    losses = ipo_loss(*columns, beta=0.5, chosen_lengths=torch.tensor([0]), rejected_lengths=torch.tensor([3]))
    assert losses.item() == pytest.approx((0.0 + 1.0 - 1.0) ** 2)


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss])
def test_extreme_log_ratios_keep_gradients_finite(loss: Any) -> None:
    chosen = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    rejected = torch.tensor([-1e4, 1e4, 1e4, -1e4], requires_grad=True)
    losses = loss(chosen, rejected, torch.zeros(4), torch.zeros(4))
    gradients = torch.autograd.grad(losses.sum(), (chosen, rejected))
    assert losses.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0][1] < 0  # the wrongly ordered pair is still pushed


def test_sixteen_bit_log_probs_are_computed_in_fp32() -> None:
    columns = [column.detach().bfloat16() for column in logps()]
    losses = dpo_loss(*columns)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, dpo_loss(*(column.float() for column in columns)))


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss])
@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan])
def test_beta_has_to_be_positive(loss: Any, beta: float) -> None:
    with pytest.raises(UserError, match="beta"):
        loss(*logps(), beta=beta)


@pytest.mark.parametrize("label_smoothing", [-0.1, 0.5, math.nan])
def test_label_smoothing_has_to_leave_information(label_smoothing: float) -> None:
    with pytest.raises(UserError, match="label_smoothing"):
        dpo_loss(*logps(), label_smoothing=label_smoothing)


def test_ipo_needs_both_lengths() -> None:
    with pytest.raises(UserError, match="rejected_lengths"):
        ipo_loss(*logps(), chosen_lengths=LENGTHS[:, 0])


def test_shapes_that_would_broadcast_are_refused() -> None:
    chosen, *others = logps()
    with pytest.raises(ValueError, match=r"chosen_logps \[3, 1\], rejected_logps \[3\]"):
        dpo_loss(chosen[:, None], *others)
