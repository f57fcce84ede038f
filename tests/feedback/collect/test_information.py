"""Expected information of answers, against integrals and dense covariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from hf_align.feedback.collect.information import Beliefs, choose_informative, condition, expected_information


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log1p(-p) if 0 < p < 1 else 0.0


@pytest.mark.parametrize("mean", [0.0, 1.3, -4.0])
@pytest.mark.parametrize("variance", [0.04, 1.0, 9.0])
def test_expected_information_is_entropy_of_the_mean_less_mean_entropy(mean: float, variance: float) -> None:
    deviation = math.sqrt(variance)

    def expected(function) -> float:
        ends = mean - 9 * deviation, mean + 9 * deviation
        return quad(lambda f: function(float(expit(f))) * norm.pdf(f, mean, deviation), *ends, limit=200)[0]

    by_integral = entropy(expected(lambda p: p)) - expected(entropy)
    assert expected_information([mean], [variance])[0] == pytest.approx(by_integral, abs=3e-4)


def test_nothing_is_learnt_where_nothing_is_uncertain_and_one_bit_at_most() -> None:
    assert expected_information([0.0, 2.0], [0.0, 0.0]).tolist() == pytest.approx([0, 0], abs=1e-12)
    assert expected_information([0.0], [1e8])[0] == pytest.approx(math.log(2), abs=1e-2)


def test_an_even_pair_says_more_than_a_clear_one_of_the_same_uncertainty() -> None:
    even, clear = expected_information([0.0, 3.0], [1.0, 1.0])
    assert even > 2 * clear


def test_conditioning_on_an_observation_gives_the_posterior_covariance() -> None:
    factors = np.random.default_rng(0).normal(size=(6, 4))
    covariance, precision = factors @ factors.T, 0.7
    column = covariance[:, 2]
    posterior = covariance - np.outer(column, column) * precision / (1 + precision * covariance[2, 2])
    condition(factors, 2, precision)
    np.testing.assert_allclose(factors @ factors.T, posterior, atol=1e-12)


def test_a_pair_that_is_certain_already_teaches_nothing() -> None:
    factors = np.array([[0.0, 0.0], [1.0, 2.0]])
    condition(factors, 0, 5.0)
    assert factors.tolist() == [[0.0, 0.0], [1.0, 2.0]]


def test_a_batch_is_chosen_one_by_one_given_the_answers_to_those_before() -> None:
    rng = np.random.default_rng(1)
    factors, mean = rng.normal(size=(12, 3)), rng.normal(size=12)
    covariance, expected, gains = factors @ factors.T, [], []
    for _ in range(5):
        information = expected_information(mean, covariance.diagonal())
        information[expected] = -1
        best = int(information.argmax())
        expected.append(best)
        gains.append(information[best])
        deviation = math.sqrt(covariance[best, best])
        fisher = quad(lambda f: expit(f) * expit(-f) * norm.pdf(f, mean[best], deviation), -40, 40)[0]  # noqa: B023
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / (1 / (2 * fisher) + covariance[best, best])
    places, information = choose_informative(Beliefs(mean, factors), 5, answers=2)
    assert places.tolist() == expected
    assert information.tolist() == pytest.approx(gains, abs=1e-3)


def test_a_batch_is_diverse_where_the_best_single_pairs_are_equal() -> None:
    factors = np.zeros((30, 3))
    factors[:28, 0], factors[28, 1], factors[29, 2] = 3, 2, 1
    places, _ = choose_informative(Beliefs(np.zeros(30), factors), 3, answers=20)
    assert set(places) == {0, 28, 29}


def test_more_pairs_than_there_are_give_all() -> None:
    places, gains = choose_informative(Beliefs(np.zeros(3), np.eye(3)), 9)
    assert sorted(places) == [0, 1, 2] and len(gains) == 3
