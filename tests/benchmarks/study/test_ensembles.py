"""AUROC over resampled pairs, packed scores, and the length penalty of the study."""

import numpy as np
import pytest

from benchmarks.study.ensembles import auroc
from benchmarks.study.length import slope
from benchmarks.study.records import packed, unpacked
from benchmarks.study.resampled import number, sums
from hf_align.models.length_penalty import length_slope

RNG = np.random.default_rng(0)


def test_auroc_with_weights_is_the_share_of_pairs_in_the_right_order():
    values, positive = RNG.integers(0, 5, 30).astype(float), RNG.random(30) < 0.4
    weights = RNG.integers(0, 4, (50, 30)).astype(float)
    for number_, row in enumerate(weights):
        items = [(v, p) for v, p, w in zip(values, positive, row, strict=True) for _ in range(int(w))]
        points = [(a > b) + 0.5 * (a == b) for a, p in items if p for b, q in items if not q]
        assert auroc(values, positive, weights)[number_] == pytest.approx(np.mean(points))


def test_sums_over_drawn_texts_equal_those_of_the_drawn_pairs():
    matrix, draw = RNG.random((6, 6)), np.array([0, 3, 3, 1, 5, 0])
    counts = np.bincount(draw, minlength=6).astype(float)
    assert sums(matrix, counts[None])[0] == pytest.approx(sum(matrix[i, j] for i in draw for j in draw))


def test_scores_are_stored_to_three_digits():
    scores = RNG.normal(size=100) * 3
    np.testing.assert_allclose(unpacked(packed(scores)), scores, rtol=1e-3, atol=1e-4)
    assert [number(0.123), number(-0.05, signed=True), number(1.5)] == [".123", "-.050", "1.500"]


def test_the_study_s_penalty_is_the_trainer_s():
    lengths, means = RNG.integers(1, 20, 12), RNG.normal(size=12)
    rewards = RNG.normal(size=12)
    row = {"response_ids": [[0] * size for size in lengths], "scores": means.tolist()}
    ours = length_slope([rewards.tolist()], [row], "texts")
    assert slope(rewards, lengths.astype(float), means) == pytest.approx(ours)
