"""Kendall's tau within rankings."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from hf_align.data.comparison_rows import read_comparisons
from hf_align.evaluation.rank_agreement import measure_rank_agreement
from hf_align.statistics import Resampling


def tau(x: Any, y: Any) -> float:
    found: Any = kendalltau(x, y)
    return float(found.statistic)


def test_tau_is_scipy_s_within_each_ranking_and_constant_scores_are_counted() -> None:
    rng = np.random.default_rng(0)
    people = [[0, 0, 1, 2], [2, 1, 1, 0], [0, 1, 2, 3]]
    rows = [
        {
            "prompt": str(n),
            "responses": [f"{n}{k}" for k in range(4)],
            "scores": rng.permutation(people[n % 3]).tolist(),
        }
        for n in range(10)
    ]
    rows[3]["scores"], rows[5]["scores"] = [1, 1, 1, 1], [0, 1, 2, 3]
    data = read_comparisons(rows)
    scores = np.concatenate([rng.permutation([0.0, 1.0, 1.0, 2.0]) for _ in range(10)])
    scores[12:16] = scores[20:24] = 1.0
    expected = [tau(scores[4 * n : 4 * n + 4], rows[n]["scores"]) for n in range(10) if n not in (3, 5)]
    figures = measure_rank_agreement(data, scores, Resampling(data.units, resamples=100))
    assert figures is not None
    assert figures["tau"] == pytest.approx(np.mean(expected))
    assert (figures["rankings"], figures["constant_scores"], figures["constant_people"]) == (8, 1, 1)
    assert figures["constant_prompts"] == [5]


def test_tau_of_few_prompts_has_the_interval_of_their_texts() -> None:
    rng = np.random.default_rng(1)
    human = rng.normal(size=80)
    scores = human + rng.normal(size=80)
    data = read_comparisons([{"prompt": "p", "response": str(n), "rating": float(v)} for n, v in enumerate(human)])
    figures = measure_rank_agreement(data, scores, Resampling(data.units, resamples=500))
    again = [tau(scores[drawn], human[drawn]) for drawn in rng.integers(0, 80, (300, 80))]
    assert figures is not None and figures["tau"] == pytest.approx(tau(scores, human))
    assert figures["tau_interval"] == pytest.approx(np.percentile(again, [2.5, 97.5]), abs=0.03)


def test_pairs_have_no_tau() -> None:
    data = read_comparisons([{"prompt": "p", "chosen": "a", "rejected": "b"}])
    assert measure_rank_agreement(data, np.zeros(2), Resampling(1)) is None
