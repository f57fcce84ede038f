from itertools import product

import numpy as np
import pytest

from benchmarks.study.figures import entropy, figures, log_loss, off_diagonal, vote_shares
from benchmarks.study.label_tables import pair_correlation
from hf_align.evaluation.ratings import HUMAN, rating_report

RNG = np.random.default_rng(0)
RATINGS = [RNG.integers(-4, 5, size=size).tolist() for size in (15, 20, 15, 31, 18, 20, 16, 24)]


def test_shares_count_pairs_of_votes_with_ties_as_half():
    shares = vote_shares(RATINGS)
    for i, j in product(range(8), repeat=2):
        points = [(a > b) + 0.5 * (a == b) for a, b in product(RATINGS[i], RATINGS[j])]
        assert shares[i, j] == pytest.approx(np.mean(points))


def test_log_loss_is_at_its_floor_where_the_model_gives_the_votes_shares():
    scores = np.array([0.3, -1.2])
    share = 1 / (1 + np.exp(-1.5))
    shares = np.array([[0.5, share], [1 - share, 0.5]])
    assert off_diagonal(log_loss(scores, shares)) == pytest.approx(off_diagonal(entropy(shares)))
    assert off_diagonal(log_loss(scores * 1.1, shares)) > off_diagonal(entropy(shares))


def test_counts_of_texts_equal_drawing_them_without_pairs_of_a_text_with_itself():
    a, b = RNG.normal(size=(2, 8, 8))
    draw = np.array([0, 3, 3, 1, 7, 0, 0, 5])
    pairs = [(i, j) for i, j in product(draw, repeat=2) if i != j]
    counts = np.bincount(draw, minlength=8)
    assert off_diagonal(a, counts) == pytest.approx(np.mean([a[pair] for pair in pairs]))
    expected = np.corrcoef([a[pair] for pair in pairs], [b[pair] for pair in pairs])[0, 1]
    assert pair_correlation(a, b, counts) == pytest.approx(expected)


def test_figures_agree_with_the_report_and_find_the_temperature():
    scores = np.array([np.mean(votes) for votes in RATINGS]) + RNG.normal(size=8)
    found = figures(scores, RATINGS)
    report = rating_report({"model": scores.tolist()}, RATINGS, ["d"] * 8, resamples=50)["d"]["scorers"]
    assert found["r"] == pytest.approx(report["model"]["r"])
    assert found["person_r"] == pytest.approx(report[HUMAN]["r"])
    assert found["gain"] == pytest.approx(found["r"] - found["person_r"])
    assert found["gain_interval"][0] < found["gain"] < found["gain_interval"][1]
    assert found["floor"] < found["nll_scaled"] <= found["nll"]
    assert figures(scores * 3, RATINGS)["temperature"] == pytest.approx(3 * found["temperature"], rel=1e-3)
