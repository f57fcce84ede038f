"""Win rates by hand, and length-controlled ones against closed forms and another optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from hf_align.evaluation.win_rate import (
    PRIOR_VARIANCE,
    fit_logistic,
    length_controlled,
    measure_length_controlled,
    measure_win_rate,
    wins_of,
)
from hf_align.statistics import Resampling


def test_ties_count_half_and_intervals_are_over_prompts() -> None:
    scores = {"base": [0.0, 1.0, 2.0, 3.0], "dpo": [1.0, 1.0, 1.0, 5.0]}
    figures = measure_win_rate(scores, "base", Resampling(4, resamples=400), np.arange(4))["dpo"]
    assert figures["win_rate"] == (1 + 0.5 + 0 + 1) / 4
    assert (figures["wins"], figures["ties"], figures["losses"]) == (2, 1, 1)
    low, high = figures["win_rate_interval"]
    assert 0 <= low < figures["win_rate"] < high <= 1
    # Ten copies of one prompt say no more than one prompt.
    copies = {name: [values[0]] * 10 for name, values in scores.items()}
    once = measure_win_rate(copies, "base", Resampling(1, resamples=20), np.zeros(10, dtype=int))["dpo"]
    assert once["win_rate"] == 1 and np.isnan(once["win_rate_interval"]).all()


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


def test_what_length_cannot_decide_or_decides_alone_stays_finite() -> None:
    resampling, unit = Resampling(20, resamples=60), np.arange(20)
    lengths = {"base": [5.0] * 20, "dpo": [5.0] * 20, "long": [9.0] * 20}
    scores = {"base": [0.0] * 20, "dpo": [1.0] * 15 + [-1.0] * 5, "long": [1.0] * 20}
    figures = measure_length_controlled(scores, "base", lengths, resampling, unit)
    assert figures["dpo"]["length_controlled"] == pytest.approx(0.75), "no difference of length: the win rate"
    assert np.isnan(figures["long"]["length_controlled"]) and not figures["long"]["within"]
    longer = np.linspace(-5, 5, 20)
    alone = length_controlled(wins_of(longer, np.zeros(20)), longer, resampling, unit)
    assert alone["length_controlled"] == pytest.approx(0.5, abs=0.01) and 3 < alone["length_weight"] < 40
    always = length_controlled(np.ones(20), longer, resampling, unit)
    assert always["length_controlled"] == pytest.approx(1, abs=1e-6)
