"""Gao's forms, against scipy and by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from hf_align.errors import UserError
from hf_align.evaluation.gao import Kind, fit_gao

KL = np.linspace(0.0, 20.0, 12)


def _bon(kl: NDArray, alpha: float, beta: float, start: float) -> NDArray:
    return start + np.sqrt(kl) * (alpha - beta * np.sqrt(kl))


def _rl(kl: NDArray, alpha: float, beta: float, start: float) -> NDArray:
    d = np.sqrt(kl)
    return start + d * (alpha - beta * np.log(np.maximum(d, 1e-300)))


FORMS = {"bon": _bon, "rl": _rl}


@pytest.mark.parametrize(("kind", "turning"), [("bon", (1.2 / 0.5) ** 2), ("rl", math.exp(1.2 / 0.5 - 1) ** 2)])
def test_known_parameters_and_turning_points_are_recovered(kind: Kind, turning: float) -> None:
    beta = 0.25 if kind == "bon" else 0.5
    gold = FORMS[kind](KL, 1.2, beta, -3.0)
    for start in (None, -3.0):
        fit = fit_gao(KL, gold, kind, resamples=50, start=start)
        assert (fit.alpha, fit.beta, fit.start) == pytest.approx((1.2, beta, -3.0))
        assert fit.turning_point == pytest.approx(turning) and fit.turns and fit.is_sure
        assert fit.turning_interval == pytest.approx([turning, turning], rel=1e-4)
        assert fit.predict(KL) == pytest.approx(gold)
        around = fit.predict([0.98 * turning, turning, 1.02 * turning])
        assert around.argmax() == 1


@pytest.mark.parametrize("kind", ["bon", "rl"])
def test_noisy_points_give_what_scipy_finds_and_an_interval_that_holds_the_truth(kind: Kind) -> None:
    rng, form = np.random.default_rng(3), FORMS[kind]
    gold = form(KL, 1.2, 0.4, 0.3) + rng.normal(scale=0.05, size=(40, len(KL)))
    fit = fit_gao(KL, gold, kind, resamples=300)
    found, _ = curve_fit(form, KL, gold.mean(0), p0=(1.0, 1.0, 0.0))
    assert (fit.alpha, fit.beta, fit.start) == pytest.approx(tuple(found), rel=1e-5)
    true = (1.2 / 0.8) ** 2 if kind == "bon" else math.exp(2) ** 2
    if kind == "bon":
        low, high = fit.turning_interval
        assert low < true < high and high - low < 1.0
        assert str(fit).startswith("The judge turns at KL 2.2")
        alone = fit_gao(KL, gold.mean(0), kind, resamples=300)  # residuals instead of prompts
        assert alone.turning_interval[0] < true < alone.turning_interval[1]
    else:  # e^4 nats, beyond what was measured
        assert not fit.turns and "No turning point up to KL 20" in str(fit)


def test_a_case_by_hand() -> None:
    # d = 0, 1, 2, 3 and gold 0, 2, 2, 0 lie on d (3 - d), which turns at d = 1.5.
    fit = fit_gao([0.0, 1.0, 4.0, 9.0], [0.0, 2.0, 2.0, 0.0], "bon", resamples=20)
    assert (fit.alpha, fit.beta, fit.turning_point, fit.explained) == pytest.approx((3.0, 1.0, 2.25, 1.0))
    # Unlike points: least squares of (1, 3, 2) on d = 1, 2, 3 with start 0 by the normal equations
    # [14 -36; -36 98] (alpha, beta) = (13, -31), whose determinant is 76.
    uneven = fit_gao([1.0, 4.0, 9.0], [1.0, 3.0, 2.0], "bon", start=0.0, resamples=20)
    assert (uneven.alpha, uneven.beta) == pytest.approx(((13 * 98 - 36 * 31) / 76, (36 * 13 - 14 * 31) / 76))


def test_courses_without_a_turning_point_say_why() -> None:
    rising = fit_gao(KL, KL, "bon", resamples=20)
    assert rising.turning_point == math.inf and not rising.turns and "doesn't bend down" in str(rising)
    falling = fit_gao(KL, -KL, "bon", resamples=20)
    assert falling.turning_point == pytest.approx(0, abs=1e-9) and "falls from the start" in str(falling)
    noise = fit_gao(KL, np.random.default_rng(0).normal(size=len(KL)), "bon", resamples=20)
    assert not noise.turns and "fits badly" in str(noise)
    flat = fit_gao(KL, np.ones(len(KL)), "rl", resamples=20)
    assert not flat.turns and "constant scores" in str(flat)


@pytest.mark.parametrize(
    ("kl", "gold", "kind", "message"),
    [
        ([0, 1, 2], [0, 1, 2], "bon", "needs 4 points of different KL, got 3"),
        ([-1, -0.5, 0, 1], [0, 1, 2, 3], "rl", "needs 4 points of different KL, got 2"),
        ([0, 1, 2, 3], [0, 1, 2], "bon", r"kl has shape \(4,\) and gold \(3,\)"),
        ([0, 1, 2, 3], [0, 1, 2, math.nan], "bon", "NaN or an infinite number"),
        ([0, 1, 2, 3], [0, 1, 2, 3], "ppo", "kind is 'ppo'"),
    ],
)
def test_unusable_points_are_refused(kl: list, gold: list, kind: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_gao(kl, gold, kind)  # type: ignore[arg-type]
