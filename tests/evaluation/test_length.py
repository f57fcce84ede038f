"""Length and style."""

import numpy as np
import pytest

from hf_align.data.comparison_rows import read_comparisons
from hf_align.evaluation.length import measure_length, measure_styles, style_levels, style_matrix
from hf_align.statistics import Resampling


def test_correlation_over_all_pairs_of_a_prompt_is_that_within_it() -> None:
    rng = np.random.default_rng(0)
    human, lengths = rng.normal(size=30), rng.integers(1, 50, 30).astype(float)
    scores = human + 0.05 * lengths
    data = read_comparisons([{"prompt": "p", "response": str(n), "rating": float(v)} for n, v in enumerate(human)])
    figures = measure_length(data, scores, lengths, Resampling(data.units, resamples=50))
    assert figures["reward"] == pytest.approx(np.corrcoef(scores, lengths)[0, 1])
    assert figures["people"] == pytest.approx(np.corrcoef(human, lengths)[0, 1])
    assert figures["excess"] == pytest.approx(figures["reward"] - figures["people"])
    assert figures["excess_interval"][0] < figures["excess"] < figures["excess_interval"][1]


def test_pairs_by_length_by_hand() -> None:
    labels = [1.0, 0.0] * 5
    rows = [{"prompt": str(n), "chosen": "a", "rejected": "b", "label": label} for n, label in enumerate(labels)]
    data = read_comparisons(rows)
    # The better response, in every other row the second, is longer by -5 .. 4; a model that counts tokens is right
    # where it is longer.
    lengths = np.zeros(20)
    lengths[data.first], lengths[data.second] = 10 + data.better * np.arange(-5, 5), 10
    figures = measure_length(data, lengths, lengths, Resampling(data.units, resamples=50))
    assert figures["reward"] == pytest.approx(1.0)
    # sum(dl) / sqrt(10 sum(dl^2)) with every label 1.
    assert figures["people"] == pytest.approx(-5 / np.sqrt(10 * 85))
    assert [(part["low"], part["high"], part["pairs"], part["accuracy"]) for part in figures["parts"]] == [
        *((-5, -4, 2, 0.0), (-3, -2, 2, 0.0), (-1, 0, 2, 0.25), (1, 2, 2, 1.0), (3, 4, 2, 1.0))
    ]
    assert figures["longer_wins"] == {"pairs": 9, "people": pytest.approx(4 / 9), "reward": 1.0}


def test_style_matrix_by_hand() -> None:
    chosen, rejected = [[1.0, 2.0, 3.0], [0.0, 5.0, 1.0]], [[1.0, 1.0, 2.5], [2.0, 0.0, 0.5]]
    matrix = style_matrix(chosen, rejected)
    assert matrix.tolist() == [[0.0, 0.0, 0.0], [1.0, 1.0, 0.5], [0.5, 1.0, 1.0]]
    levels = style_levels(matrix)
    assert levels == pytest.approx(
        {"hard": 0.5 / 3, "normal": 2 / 3, "easy": 2.5 / 3, "average": (0.5 / 3 + 2 / 3 + 2.5 / 3) / 3}
    )
    rows = [{"prompt": p, "chosen": [f"{p}c{s}" for s in "012"], "rejected": [f"{p}r{s}" for s in "012"]} for p in "pq"]
    data = read_comparisons(rows)
    scores = np.concatenate([np.concatenate(both) for both in zip(chosen, rejected, strict=True)])
    figures = measure_styles(data, scores, Resampling(data.units, resamples=100))
    assert figures is not None and figures["matrix"] == matrix.tolist() and figures["rows"] == 2
    assert {name: figures[name] for name in levels} == levels
    assert figures["hard_interval"] == pytest.approx([0.0, 1 / 3])
