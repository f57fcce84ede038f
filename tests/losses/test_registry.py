"""Every loss by name: TRL's value and gradient, the formula by hand, and where it pulls."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_align.losses import PREFERENCE_LOSSES, PreferenceBatch
from hf_align.losses.registry import DIVERGENCE, EVERY_OPTION, NOT_OFFERED
from tests.trl_losses import trl_loss, trl_simpo

DEFAULTS: dict[str, Any] = {
    "label_smoothing": 0.0,
    "length_normalize": False,
    "ipo_target": None,
    "ipo_reduction": "mean",
    "simpo_gamma": 0.5,
    "discopop_tau": 0.05,
    "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": 0.5,
}
OF_TRL = [name for name in PREFERENCE_LOSSES if name not in ("simpo", "sft")]
SMOOTHED = ("robust", "exo_pair")
"""Losses whose label_smoothing TRL has, too."""


def config(beta: float, **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(beta=beta, **{**DEFAULTS, **changes})


def random_batch(seed: int = 0, size: int = 6) -> tuple[list[Tensor], Tensor]:
    """Log-probs of chosen, rejected and both under the reference, the first two with gradient; lengths `[B, 2]`."""
    generator = torch.Generator().manual_seed(seed)
    policy = -12.0 * torch.rand(2, size, generator=generator)
    reference = policy + 3.0 * torch.randn(2, size, generator=generator)
    lengths = torch.randint(1, 9, (size, 2), generator=generator)
    return [*(each.clone().requires_grad_() for each in policy), *reference], lengths


def loss_of(name: str, columns: list[Tensor], lengths: Tensor, options: SimpleNamespace) -> Tensor:
    chosen, rejected, *reference = columns
    return PREFERENCE_LOSSES[name](PreferenceBatch(chosen, rejected, *lengths.unbind(1), *reference), options)


def same(ours: Tensor, theirs: Tensor, columns: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    gradients = [torch.autograd.grad(each, columns[:2], allow_unused=True) for each in (ours, theirs)]
    for left, right in zip(*gradients, strict=True):
        if left is None or right is None:
            assert left is None and (right is None or not right.any())
        else:
            torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", OF_TRL)
def test_a_loss_equals_trl_s(name: str) -> None:
    smoothing = {"label_smoothing": 0.15} if name in SMOOTHED else {}
    for seed in range(3):
        columns, lengths = random_batch(seed)
        theirs = trl_loss(columns, lengths, name, 0.3, discopop_tau=0.2, **smoothing)
        same(loss_of(name, columns, lengths, config(0.3, discopop_tau=0.2, **smoothing)).mean(), theirs, columns)


@pytest.mark.parametrize("kind", ["forward_kl", "js_divergence", "alpha_divergence"])
@pytest.mark.parametrize("name", [name for name in OF_TRL if DIVERGENCE[0] in PREFERENCE_LOSSES[name].options])
def test_a_loss_by_another_divergence_equals_trl_s(name: str, kind: str) -> None:
    columns, lengths = random_batch(4)
    options: dict[str, Any] = {"f_divergence_type": kind, "f_alpha_divergence_coef": 0.3}
    options |= {"label_smoothing": 0.15} if name in SMOOTHED else {}
    theirs = trl_loss(columns, lengths, name, 0.05, **options)
    same(loss_of(name, columns, lengths, config(0.05, **options)).mean(), theirs, columns)


def test_sft_equals_trl_s_of_each_pair_and_of_responses_of_one_length() -> None:
    """TRL's is the mean over all tokens of a batch, ours over each response's: a pair's loss depends on it alone."""
    columns, lengths = random_batch(5)
    for row in range(len(lengths)):
        one, of_one = [column[row : row + 1] for column in columns], lengths[row : row + 1]
        same(loss_of("sft", one, of_one, config(0.1)).mean(), trl_loss(one, of_one, "sft", 0.1), one)
    even = torch.full_like(lengths, 5)
    same(loss_of("sft", columns, even, config(0.1)).mean(), trl_loss(columns, even, "sft", 0.1), columns)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_simpo_equals_trl_s(smoothing: float) -> None:
    columns, lengths = random_batch(6)
    means = [column / length for column, length in zip(columns, lengths.unbind(1), strict=False)]
    theirs = trl_simpo(means[0], means[1], 2.0, 1.3, smoothing).mean()
    same(
        loss_of("simpo", columns, lengths, config(2.0, simpo_gamma=1.3, label_smoothing=smoothing)).mean(),
        theirs,
        columns,
    )


def sig(x: float) -> float:
    return 1 / (1 + exp(-x))


def kl(p: float, q: float) -> float:
    """KL of two coins."""
    return p * log(p / q) + (1 - p) * log((1 - p) / (1 - q))


# Log-probs -4 and -9 of 2 and 3 tokens, under the reference -5 and -6: r+ = 1, r- = -3, h = 4; beta = 0.5, s = 0.1.
BY_HAND: dict[str, Callable[[], float]] = {
    "sigmoid": lambda: -0.9 * log(sig(2)) - 0.1 * log(sig(-2)),
    "sigmoid_norm": lambda: -0.9 * log(sig(0.75)) - 0.1 * log(sig(-0.75)),  # 1/2 + 3/3 = 1.5
    "hinge": lambda: 0.0,
    "ipo": lambda: (1.5 - 1.0) ** 2,
    "robust": lambda: (-0.9 * log(sig(2)) + 0.1 * log(sig(-2))) / 0.8,
    "exo_pair": lambda: kl(sig(2), 0.9),
    "discopop": lambda: (1 - sig(8)) * -log(sig(2)) + sig(8) * exp(-2),  # tau 1/4
    "nca_pair": lambda: -log(sig(0.5)) - 0.5 * log(sig(-0.5)) - 0.5 * log(sig(1.5)),
    "bco_pair": lambda: -log(sig(0.5)) - log(sig(1.5)),
    "sppo_hard": lambda: (1 - 1) ** 2 + (-3 + 1) ** 2,
    "apo_zero": lambda: 1 - sig(0.5) + sig(-1.5),
    "apo_down": lambda: sig(0.5) + 1 - sig(2),
    "simpo": lambda: -0.9 * log(sig(0.2)) - 0.1 * log(sig(-0.2)),  # (-2 + 3) / 2 - 0.3
    "sft": lambda: 2.0,
}


def test_every_loss_by_hand() -> None:
    assert BY_HAND.keys() == PREFERENCE_LOSSES.keys()
    columns = [torch.tensor([value]) for value in (-4.0, -9.0, -5.0, -6.0)]
    options = config(0.5, label_smoothing=0.1, discopop_tau=0.25, simpo_gamma=0.3)
    for name, expected in BY_HAND.items():
        loss = loss_of(name, columns, torch.tensor([[2, 3]]), options)
        assert loss.shape == (1,) and loss.item() == pytest.approx(expected(), abs=1e-6), name


def test_options_of_a_loss() -> None:
    columns = [torch.tensor([value]) for value in (-4.0, -9.0, -5.0, -6.0)]
    lengths = torch.tensor([[2, 3]])
    by_token = loss_of("sigmoid", columns, lengths, config(0.5, length_normalize=True))
    assert torch.equal(by_token, loss_of("sigmoid_norm", columns, lengths, config(0.5)))
    sums = loss_of("ipo", columns, lengths, config(0.5, ipo_reduction="sum", ipo_target=2.5))
    assert sums.item() == pytest.approx((4 - 2.5) ** 2)


def test_discopop_turns_where_its_paper_says() -> None:
    """Its slope is 0 at beta h = -2.3714 tau and 1.44012 tau (section 4.4), and positive between, at h = 0, too."""
    gaps = (0.05 * torch.tensor([-4.0, -2.3714, 0.0, 1.44012, 3.0])).requires_grad_()
    zeros = torch.zeros(5)
    losses = loss_of("discopop", [gaps, zeros, zeros, zeros], torch.ones(5, 2), config(1.0))
    (slopes,) = torch.autograd.grad(losses.sum(), gaps)
    assert slopes[[1, 3]].abs().max() < 2e-4
    assert slopes[0] < 0 and slopes[2] > 0.5 and slopes[4] < 0


@pytest.mark.parametrize("name", [name for name in PREFERENCE_LOSSES if name != "discopop"])
def test_a_loss_falls_as_the_chosen_response_gains_on_the_rejected_one(name: str) -> None:
    """Where policy and reference agree, and for a pair that they order wrongly."""
    chosen = torch.tensor([-5.0, -9.0], requires_grad=True)
    rejected = torch.tensor([-5.0, -4.0], requires_grad=True)
    columns = [chosen, rejected, torch.tensor([-5.0, -6.0]), torch.tensor([-5.0, -6.0])]
    losses = loss_of(name, columns, torch.full((2, 2), 4), config(0.4, label_smoothing=0.05))
    up, down = torch.autograd.grad(losses.sum(), [chosen, rejected], materialize_grads=True, allow_unused=True)
    assert (up - down < 0).all()


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_extreme_log_ratios_keep_losses_and_gradients_finite(name: str) -> None:
    chosen = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    rejected = torch.tensor([-1e4, 1e4, 1e4, -1e4], requires_grad=True)
    columns = [chosen, rejected, torch.zeros(4), torch.zeros(4)]
    losses = loss_of(name, columns, torch.full((4, 2), 4), config(0.4, label_smoothing=0.05))
    gradients = torch.autograd.grad(losses.sum(), [chosen, rejected], materialize_grads=True, allow_unused=True)
    assert losses.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)


def test_what_is_said_of_the_losses_holds() -> None:
    columns, lengths = random_batch(7)
    alone = [*columns[:2], None, None]
    for name, loss in PREFERENCE_LOSSES.items():
        assert name == loss.name and {*loss.options} <= {*DEFAULTS, "ld_alpha"}
        options = config(0.3, label_smoothing=0.1)
        if loss.reference_free:
            assert torch.equal(loss_of(name, alone, lengths, options), loss_of(name, columns, lengths, options))  # type: ignore[arg-type]
        else:
            with pytest.raises(ValueError, match="no log-probs of a reference"):
                loss_of(name, alone, lengths, options)  # type: ignore[arg-type]
    assert not {*NOT_OFFERED} & {*PREFERENCE_LOSSES} and {*DEFAULTS, "ld_alpha"} == {*EVERY_OPTION}


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_a_loss_reads_the_options_that_it_says_and_no_other(name: str) -> None:
    columns, lengths = random_batch(8)
    changed: dict[str, Any] = {
        "label_smoothing": 0.3,
        "length_normalize": True,
        "ipo_target": 0.7,
        "ipo_reduction": "sum",
        "simpo_gamma": 2.0,
        "discopop_tau": 3.0,
        "f_divergence_type": "alpha_divergence",
    }
    start = config(0.3, label_smoothing=0.1)
    before = loss_of(name, columns, lengths, start)
    for option, value in changed.items():
        after = loss_of(name, columns, lengths, config(0.3, **{"label_smoothing": 0.1, option: value}))
        assert torch.equal(before, after) == (option not in PREFERENCE_LOSSES[name].options), option
