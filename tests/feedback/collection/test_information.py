"""Expected information of answers, against integrals and dense covariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from hf_align.feedback.collection.information import Aim, Beliefs, choose_informative, condition, expected_information


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
    covariance, pool, precision = factors @ factors.T, factors.T @ factors / 6, 0.7
    column = covariance[:, 2]
    posterior = covariance - np.outer(column, column) * precision / (1 + precision * covariance[2, 2])
    condition(factors, pool, 2, precision)
    np.testing.assert_allclose(factors @ factors.T, posterior, atol=1e-12)
    np.testing.assert_allclose(pool, factors.T @ factors / 6, atol=1e-12)


def test_a_pair_that_is_certain_already_teaches_nothing() -> None:
    factors = np.array([[0.0, 0.0], [1.0, 2.0]])
    condition(factors, factors.T @ factors / 2, 0, 5.0)
    assert factors.tolist() == [[0.0, 0.0], [1.0, 2.0]]


@pytest.mark.parametrize("aim", ["predictions", "parameters"])
def test_a_batch_is_chosen_one_by_one_given_the_answers_to_those_before(aim: Aim) -> None:
    rng = np.random.default_rng(1)
    factors, mean = rng.normal(size=(12, 3)), rng.normal(size=12)
    covariance, expected, gains = factors @ factors.T, [], []

    def after(place: int, answers: float) -> np.ndarray:
        """Covariance after answers to a pair, on dense matrices."""
        deviation, column = math.sqrt(covariance[place, place]), covariance[:, place]
        f = mean[place] + deviation * np.linspace(-8, 8, 2001)
        fisher = np.average(expit(f) * expit(-f), weights=norm.pdf(f, mean[place], deviation))
        return covariance - np.outer(column, column) / (1 / (answers * fisher) + covariance[place, place])

    for _ in range(5):
        if aim == "predictions":
            gain = np.array([(covariance - after(place, 1)).diagonal().mean() for place in range(12)])
        else:
            gain = expected_information(mean, covariance.diagonal())
        gain[expected] = -1
        expected.append(int(gain.argmax()))
        gains.append(gain.max())
        covariance = after(expected[-1], 2)
    places, found = choose_informative(Beliefs(mean, factors), 5, answers=2, aim=aim)
    assert places.tolist() == expected
    assert found.tolist() == pytest.approx(gains, rel=5e-3)


def test_a_batch_is_diverse_where_the_best_single_pairs_are_equal() -> None:
    factors = np.zeros((30, 3))
    factors[:28, 0], factors[28, 1], factors[29, 2] = 3, 2, 1
    places, _ = choose_informative(Beliefs(np.zeros(30), factors), 3, answers=20, aim="parameters")
    assert set(places) == {0, 28, 29}


def test_predictions_ask_where_the_pool_is_and_parameters_ask_about_outliers() -> None:
    factors = np.zeros((30, 2))
    factors[:29, 0], factors[29, 1] = 1, 3
    beliefs = Beliefs(np.zeros(30), factors)
    assert choose_informative(beliefs, 1)[0][0] < 29
    assert choose_informative(beliefs, 1, aim="parameters")[0][0] == 29


def test_more_pairs_than_there_are_give_all() -> None:
    places, gains = choose_informative(Beliefs(np.zeros(3), np.eye(3)), 9)
    assert sorted(places) == [0, 1, 2] and len(gains) == 3


def test_no_response_is_in_more_pairs_than_it_has_room_for() -> None:
    rng = np.random.default_rng(2)
    pairs = np.array([[a, b] for a in range(6) for b in range(a + 1, 6)])
    states, room = rng.normal(size=(6, 3)), np.array([0, 1, 2, 2, 2, 9])
    beliefs = Beliefs(np.zeros(15), states[pairs[:, 0]] - states[pairs[:, 1]])
    places, gains = choose_informative(beliefs, 15, pairs=pairs, room=room)
    uses = np.bincount(pairs[places].ravel(), minlength=6)
    assert (uses <= room).all() and len(places) == len(gains) == len(set(places)) > 2
    left = np.array([pair for place, pair in enumerate(pairs) if place not in places])
    assert ((room - uses)[left] <= 0).any(1).all()  # no further pair would have had room
    assert room.tolist() == [0, 1, 2, 2, 2, 9]
