"""Scores of f-divergences: derivatives of the divergences' f, at u = policy / reference."""

from math import exp, log

import pytest
import torch

from hf_align.losses.divergence import Divergence, divergence_score

U = [0.05, 0.5, 1.0, 2.0, 20.0]
F = {
    "reverse_kl": lambda u: u * log(u) - u,
    "forward_kl": lambda u: u - log(u),
    "js_divergence": lambda u: u * log(2 * u / (1 + u)) + log(2 / (1 + u)),
    "alpha_divergence": lambda u: (u**0.7 / 0.7 - u) / (0.7 - 1),
}
"""f of E_ref[f(u)], up to terms that change neither the divergence nor, by a constant, its derivative's differences."""


@pytest.mark.parametrize("kind", F)
def test_a_score_is_the_slope_of_f(kind: Divergence) -> None:
    scores = divergence_score(torch.tensor(U, dtype=torch.float64).log(), kind, alpha=0.7).tolist()
    for u, score in zip(U, scores, strict=True):
        step = 1e-5 * u
        assert score == pytest.approx((F[kind](u + step) - F[kind](u - step)) / (2 * step), rel=1e-6, abs=1e-6)
    assert scores == sorted(scores) and scores[2] == pytest.approx(0, abs=1e-12), "0 where both agree"


def test_alpha_goes_from_forward_to_reverse_kl() -> None:
    ratios = torch.tensor(U).log()
    for alpha, kind in ((0.0, "forward_kl"), (1.0, "reverse_kl")):
        assert torch.equal(divergence_score(ratios, "alpha_divergence", alpha), divergence_score(ratios, kind))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", F)
def test_far_ratios_have_finite_scores_and_slopes(kind: Divergence) -> None:
    ratios = torch.tensor([-1e4, -85.0, 1e4], requires_grad=True)
    scores = divergence_score(ratios, kind)
    (slopes,) = torch.autograd.grad(scores.sum(), ratios)
    assert scores.isfinite().all() and slopes.isfinite().all() and (slopes >= 0).all()
    if kind == "forward_kl":
        assert scores[0].item() == pytest.approx(1 - exp(80), rel=1e-5), "the bound"
