"""The linear Bradley-Terry head, against a general optimiser, numerical derivatives and drawn posteriors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit

from hf_align.feedback.collection.head import EvenFeatures, LinearHead

RNG = np.random.default_rng(0)
DIFFERENCES, PREFERENCES = RNG.normal(size=(60, 4)), RNG.choice([0.0, 0.5, 1.0], 60)


def slope(w: np.ndarray, penalty: float) -> np.ndarray:
    return DIFFERENCES.T @ (expit(DIFFERENCES @ w) - PREFERENCES) + penalty * w


def test_the_head_is_the_penalised_maximum_of_the_likelihood() -> None:
    def loss(w):
        p = expit(DIFFERENCES @ w)
        return -(PREFERENCES * np.log(p) + (1 - PREFERENCES) * np.log(1 - p)).sum() + 0.35 * w @ w

    expected = minimize(loss, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose(LinearHead.fit(DIFFERENCES, PREFERENCES, penalty=0.7).weights, expected, atol=1e-5)


def test_its_covariance_is_the_inverse_of_the_losss_second_derivative() -> None:
    head = LinearHead.fit(DIFFERENCES, PREFERENCES, penalty=0.7)
    second = np.array([approx_fprime(head.weights, lambda w, n=n: slope(w, 0.7)[n], 1e-6) for n in range(4)])
    np.testing.assert_allclose(head.root @ head.root.T, np.linalg.inv(second), rtol=1e-4)


def test_beliefs_are_mean_and_covariance_of_the_pairs_log_odds() -> None:
    head = LinearHead.fit(DIFFERENCES, PREFERENCES, penalty=2.0)
    drawn = np.random.default_rng(1).multivariate_normal(head.weights, head.root @ head.root.T, 200_000)
    pairs = RNG.normal(size=(3, 4))
    beliefs = head.beliefs(pairs)
    np.testing.assert_allclose(beliefs.mean, (drawn @ pairs.T).mean(0), atol=0.01)
    np.testing.assert_allclose(beliefs.factors @ beliefs.factors.T, np.cov((drawn @ pairs.T).T), atol=0.02)


def test_separable_answers_and_any_start_end_at_the_same_weights() -> None:
    x = np.array([[30.0, 1.0], [50.0, -1.0], [80.0, 0.0]])
    head = LinearHead.fit(x, [1.0, 1.0, 1.0], penalty=1e-3)
    again = LinearHead.fit(x, [1.0, 1.0, 1.0], penalty=1e-3, start=[-3.0, 40.0])
    np.testing.assert_allclose(again.weights, head.weights, atol=1e-4)
    gradient = x.T @ (expit(x @ head.weights) - 1) + 1e-3 * head.weights
    assert np.abs(gradient).max() < 1e-3


def test_without_answers_the_head_is_its_prior() -> None:
    head = LinearHead.fit(np.zeros((0, 3)), [], penalty=4.0)
    assert head.weights.tolist() == [0, 0, 0]
    np.testing.assert_allclose(head.root @ head.root.T, np.eye(3) / 4)


def test_no_features_are_longer_than_the_median_whatever_the_states_units() -> None:
    states = RNG.normal(size=(51, 6)) * [1, 10, 100, 1, 1, 0]
    states[0] *= 1000  # an outlier
    features = EvenFeatures.fit(states, 4)(states)
    lengths = np.linalg.norm(features, axis=1)
    assert features.shape == (51, 4) and lengths[0] == pytest.approx(1)
    assert lengths.max() <= 1 + 1e-9 and np.median(lengths) == pytest.approx(1)
    again = EvenFeatures.fit(states * 7 + 3, 4)(states * 7 + 3)
    np.testing.assert_allclose(again @ again.T, features @ features.T, atol=1e-8)


def test_features_keep_the_directions_of_most_variance() -> None:
    rows = RNG.normal(size=(200, 1)) * np.ones(5) + 0.1 * RNG.normal(size=(200, 5))
    even = EvenFeatures.fit(rows, 1)
    assert abs(np.corrcoef(even(rows)[:, 0], rows.mean(1))[0, 1]) > 0.9


@pytest.mark.parametrize(("rows", "columns"), [(20, 50), (50, 20)])
def test_features_are_products_with_the_principal_components_of_a_singular_value_decomposition(
    rows: int, columns: int
) -> None:
    states = RNG.normal(size=(rows, columns)) * np.linspace(1, 3, columns)
    features = EvenFeatures.fit(states, 6)(states)
    scaled = (states - states.mean(0)) / states.std(0)
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    projected = u[:, :6] * s[:6]
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    expected = projected / np.maximum(lengths, np.median(lengths))
    np.testing.assert_allclose(features @ features.T, expected @ expected.T, atol=1e-8)


@pytest.mark.parametrize(("rows", "columns"), [(3, 10), (10, 3)])
def test_there_are_no_more_features_than_rows_or_columns(rows: int, columns: int) -> None:
    states = RNG.normal(size=(rows, columns))
    assert EvenFeatures.fit(states)(states).shape == (rows, 3)
