"""Accuracy against hand counts."""

import numpy as np
import pytest

from hf_align.data.comparison_rows import read_comparisons
from hf_align.evaluation.accuracy import measure_accuracy
from hf_align.statistics import Resampling


def test_accuracy_by_hand() -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "c"},
        {"prompt": "p", "chosen": "b", "rejected": "c"},
        {"prompt": "q", "chosen": "d", "rejected": "e", "label": 0.25},
        {"prompt": "r", "chosen": "f", "rejected": "g", "label": 0.5},
    ]
    data = read_comparisons([{"label": 1.0, **row} for row in rows])
    # a > b right, a = c half, b < c wrong; people prefer e to d, and the model doesn't; f and g are undecided.
    scores = np.array([2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 3.0, 0.0, 9.0, 0.0])
    figures = measure_accuracy(data, scores, Resampling(data.units, resamples=200))
    assert (figures["pairs"], figures["undecided"], figures["equal_scores"], figures["prompts"]) == (4, 1, 1, 2)
    assert figures["accuracy"] == pytest.approx(1.5 / 4)
    assert figures["by_prompt"] == pytest.approx((0.5 + 0.0) / 2)
    assert figures["vote_agreement"] == pytest.approx((3 + 0.75) / 4)
    assert figures["margin"] == pytest.approx((1 + 0 - 1 - 3) / 4 / scores.std())


def test_intervals_are_those_of_prompts_not_of_pairs() -> None:
    rng = np.random.default_rng(0)
    rows, scores = [], []
    for prompt in range(100):
        right = prompt % 2
        for pair in range(20):
            rows.append({"prompt": str(prompt), "chosen": f"a{pair}", "rejected": f"b{pair}"})
            scores += [float(right), 1.0 - right + 1e-3 * rng.normal()]
    data = read_comparisons(rows)
    figures = measure_accuracy(data, np.array(scores), Resampling(data.units))
    low, high = figures["accuracy_interval"]
    # 100 prompts, all right or all wrong: the standard error is .05, of 2,000 independent pairs it would be .011.
    assert high - low == pytest.approx(2 * 1.96 * 0.05, rel=0.1)


def test_intervals_across_prompts_are_those_of_texts() -> None:
    rng = np.random.default_rng(1)
    human = rng.normal(size=60)
    scores = human + rng.normal(size=60)
    rows = [{"prompt": f"p{n % 7}", "response": str(n), "rating": float(value)} for n, value in enumerate(human)]
    data = read_comparisons(rows, across_prompts=True)
    figures = measure_accuracy(data, scores[data.row_of], Resampling(data.units, resamples=1000))
    drawn = [rng.integers(0, 60, 60) for _ in range(400)]
    again = []
    for texts in drawn:
        wide = human[texts][:, None] > human[texts][None, :]
        again.append(np.mean((scores[texts][:, None] > scores[texts][None, :])[wide]))
    assert figures["accuracy_interval"] == pytest.approx(np.percentile(again, [2.5, 97.5]), abs=0.015)
    assert figures["by_prompt"] is None
