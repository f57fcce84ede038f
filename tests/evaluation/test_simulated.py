"""Simulated judgements against probabilities, and the noise floor against models that are right."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from hf_align.collators.rankings import vote_share
from hf_align.data.comparison_rows import read_comparisons
from hf_align.data.comparisons import Comparisons
from hf_align.evaluation.calibration import measure_calibration
from hf_align.evaluation.simulated import judgements
from hf_align.statistics import Resampling

QUALITY = np.array([1.5, 1.55, *np.linspace(-0.2, 0.2, 16)])  # two texts are in most pairs that are not even


def rated(votes: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Responses to one prompt whose ratings are as Bradley-Terry says, with this many votes each."""
    values = QUALITY[:, None] - np.log(rng.exponential(size=(len(QUALITY), votes)))
    return [
        {"prompt": "p", "response": str(n), **({"ratings": row} if votes > 1 else {"rating": row[0]})}
        for n, row in enumerate(values.tolist())
    ]


def floor(data: Comparisons, simulations: int) -> dict[str, Any]:
    resampling = Resampling(data.units, resamples=2)
    return measure_calibration(data, QUALITY, resampling, bins=10, simulations=simulations)["raw"]


@pytest.mark.parametrize("votes", [1, 5])
def test_the_noise_floor_of_rated_texts_is_the_ece_of_models_that_are_right(votes: int) -> None:
    rng = np.random.default_rng(votes)
    drawn = [read_comparisons(rated(votes, rng)) for _ in range(60)]
    eces = [floor(data, simulations=1)["ece"] for data in drawn]
    found = floor(drawn[0], simulations=200)
    assert found["ece_floor"] == pytest.approx(np.mean(eces), rel=0.12)
    assert np.mean([ece < found["ece_floor_high"] for ece in eces]) > 0.85
    p = expit(QUALITY[drawn[0].first] - QUALITY[drawn[0].second])
    independent = rng.binomial(votes, p, (60, len(p))) / votes
    assert found["ece_floor"] > 1.3 * np.mean([_ece(p, label) for label in independent])


def _ece(p: Any, label: Any) -> float:
    both, outcome = np.concatenate([p, 1 - p]), np.concatenate([label, 1 - label])
    place = np.minimum((both * 10).astype(int), 9)
    return sum(abs((both - outcome)[place == n].sum()) for n in range(10)) / len(both)


def test_simulated_labels_have_the_models_probabilities_and_the_texts_dependence() -> None:
    rng = np.random.default_rng(0)
    rows = [{"prompt": "p", "responses": ["a", "b", "c"], "ratings": [[1, 2, 3], [2, 2], [0, 1, 2, 5]]}]
    data, scores = read_comparisons(rows), np.array([0.5, -0.5, 1.0])
    labels = judgements(data, scores, np.arange(3))(rng, 4000)
    assert labels.shape == (4000, 3)
    assert labels.mean(axis=0) == pytest.approx(expit([1.0, -0.5, -1.5]), abs=0.015)
    votes = [[scores[n] + rng.gumbel(size=count) for n, count in enumerate((3, 2, 4))] for _ in range(4000)]
    exact = np.array([[vote_share(a, b) for a, b in combinations(each, 2)] for each in votes])
    assert np.cov(labels.T) == pytest.approx(np.cov(exact.T), abs=0.006)


def test_votes_on_pairs_are_drawn_pair_by_pair() -> None:
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    data = read_comparisons([pair | {"votes": [1, 0, 1, 1]}, pair | {"votes": [1.0]}, pair | {"votes": [0, 0]}])
    scores = np.array([1.0, 0.0] * 3)
    labels = judgements(data, scores, np.array([0, 2]))(np.random.default_rng(0), 4000)
    p = expit(1.0)
    expected = [[p * (1 - p) / 4, 0], [0, p * (1 - p) / 2]]
    assert np.cov(labels.T) == pytest.approx(np.array(expected), abs=0.005)
    assert set(np.unique(labels[:, 1])) == {0, 0.5, 1}
