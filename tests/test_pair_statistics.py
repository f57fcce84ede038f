"""Length-controlled win rates against closed forms and another optimiser, and the calibration of probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from hf_align.pair_statistics import PRIOR_VARIANCE, fit_logistic, length_controlled, one_by_one, reliability
from hf_align.statistics import Resampling


def test_at_equal_length_the_log_odds_of_longer_and_shorter_responses_are_averaged() -> None:
    # Half of the responses are longer by c, half shorter by c: d / sd(d) is 1 or -1, the regression has two cells and
    # fits both shares exactly, so a is the mean of their log odds.
    longer = np.repeat([7.0, -7.0], 1000)
    wins = np.concatenate([np.repeat([1, 0], [800, 200]), np.repeat([1, 0.5, 0], [200, 400, 400])]).astype(float)
    figures = length_controlled(wins, longer, Resampling(2000, resamples=40), np.arange(2000))
    a = (logit(0.8) + logit(0.4)) / 2
    assert figures["length_controlled"] == pytest.approx(expit(a), abs=1e-4)
    assert figures["length_weight"] == pytest.approx((logit(0.8) - logit(0.4)) / 2 / np.tanh(1), abs=1e-3)
    low, high = figures["length_controlled_interval"]
    assert low < expit(a) < wins.mean() + 0.1 and high - low < 0.1
    assert figures["within"] and figures["mean_longer"] == 0


def test_the_regression_is_what_another_optimiser_finds() -> None:
    rng = np.random.default_rng(0)
    x, weights = np.tanh(rng.normal(size=60)), rng.integers(0, 3, (3, 60)).astype(float)
    y = (rng.random(60) < expit(0.5 + 2 * x)) * rng.choice([1.0, 0.5], 60)
    for row, fitted in zip(weights, fit_logistic(x, y, weights), strict=True):

        def loss(ab: np.ndarray, row: np.ndarray = row) -> float:
            z = ab[0] + ab[1] * x
            return float((row * (np.logaddexp(0, z) - y * z)).sum() + ab[1] ** 2 / 2 / PRIOR_VARIANCE)

        assert fitted == pytest.approx(minimize(loss, [0.0, 0.0], tol=1e-10).x, abs=1e-4)


def test_probabilities_are_compared_with_shares_in_bins_of_mirrored_pairs() -> None:
    # Two pairs at .9 of which one is right: both directions are .4 off. A tie at .5 is its own mirror image.
    p, label = np.array([0.9, 0.9, 0.5]), np.array([1.0, 0.0, 0.5])
    table = reliability(p, label, one_by_one(p, np.array([1, 1, 1])), 5)
    assert table["ece"] == pytest.approx((2 * 0.4 + 2 * 0.4) / 6)
    assert [(part["pairs"], part["observed"]) for part in table["bins"]] == [(2, 0.5), (2, 0.5), (2, 0.5)]
    sure = reliability(np.ones(50), np.ones(50), one_by_one(np.ones(50), np.ones(50, dtype=int)))
    assert sure["ece"] == sure["ece_floor"] == 0
