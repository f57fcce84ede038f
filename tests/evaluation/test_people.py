"""Correlation with ratings, and the number of people whose mean a model is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr

from hf_align.data.comparison_rows import read_comparisons
from hf_align.evaluation.people import measure_people, worth_people


def test_the_mean_of_k_people_is_worth_k() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=20_000)
    votes = truth[:, None] + rng.normal(scale=1.5, size=(20_000, 8))
    single = float(np.corrcoef(votes[:, 0], truth)[0, 1])
    for k in (1, 2, 5):
        r = float(np.corrcoef(votes[:, :k].mean(1), truth)[0, 1])
        assert worth_people(r, single) == pytest.approx(k, rel=0.05)
    assert worth_people(0.5, 0.9) == pytest.approx(0.25 * 0.19 / (0.81 * 0.75))
    assert worth_people(-0.2, 0.9) == 0
    assert worth_people(None, 0.9) is None and worth_people(1.0, 0.9) is None


def test_correlation_by_subset_with_the_reason_where_it_is_undefined() -> None:
    ratings = {"a": [[1, 2], [2, 4], [4, 3]], "b": [[1, 1], [1, 1], [1, 1]]}
    rows = [
        {"prompt": "p", "response": f"{name} {n}", "ratings": votes, "domain": name}
        for name, each in ratings.items()
        for n, votes in enumerate(each)
    ]
    data = read_comparisons(rows)
    scores = np.array([0.0, 1.0, 5.0, 1.0, 2.0, 3.0])
    people = measure_people(data, scores, resamples=20)
    assert people is not None and list(people) == ["all", "a", "b"]
    assert people["a"]["r"] == pytest.approx(pearsonr([0, 1, 5], [1.5, 3, 3.5])[0])
    raters: Any = pearsonr([1, 2, 4], [2, 4, 3])
    single = float(raters.statistic)  # each rater against the other
    assert people["a"]["human_r"] == pytest.approx(single)
    assert people["a"]["worth"] == pytest.approx(worth_people(people["a"]["r"], single))
    assert people["b"]["r"] is None and people["b"]["why"] == "undefined: all ratings are equal"
    assert people["b"]["worth"] is None
    constant = measure_people(data, np.ones(6), resamples=20)
    assert constant is not None and constant["a"]["why"] == "undefined: all scores are equal"
    single_ratings = read_comparisons([{"prompt": "p", "response": f"r{n}", "rating": n} for n in range(3)])
    people = measure_people(single_ratings, np.array([0.0, 1.0, 2.0]), resamples=20)
    assert people is not None and people["all"]["r"] == pytest.approx(1) and "human_r" not in people["all"]
    assert measure_people(read_comparisons([{"prompt": "p", "chosen": "a", "rejected": "b"}]), np.ones(2)) is None


def test_a_text_rated_in_two_rows_has_each_row_s_own_ratings() -> None:
    """One person's r is that of the same ratings of as many different texts."""
    ratings = [[3, 1, 2], [0, -1, 1], [2, 2, 0], [-2, -1, -3]]

    def human_r(names: list[str]) -> float:
        rows = [{"prompt": "p", "response": a, "ratings": b} for a, b in zip(names, ratings, strict=True)]
        people = measure_people(read_comparisons(rows), np.arange(4.0), resamples=2)
        assert people is not None
        return people["all"]["human_r"]

    assert human_r(["a", "b", "a", "c"]) == human_r(["a", "b", "d", "c"])
