"""Best-of-n against enumeration of all subsets."""

from itertools import combinations

import numpy as np
import pytest

from hf_align.data.comparison_rows import read_comparisons
from hf_align.evaluation.best_of_n import best_of_n_kl, expected_best_of_n, measure_best_of_n
from hf_align.statistics import Resampling


def _enumerated(proxy: list[float], gold: list[float], n: int) -> float:
    means = []
    for subset in combinations(range(len(proxy)), n):
        best = max(proxy[number] for number in subset)
        means.append(np.mean([gold[number] for number in subset if proxy[number] == best]))
    return float(np.mean(means))


@pytest.mark.parametrize("proxy", [[0.3, -1.0, 2.0, 0.9, 0.1, 5.0], [1.0, 1.0, 0.0, 2.0, 2.0, 2.0], [1.0] * 6])
def test_the_expectation_equals_enumeration_ties_included(proxy: list[float]) -> None:
    gold = [3.0, 1.0, -2.0, 0.5, 4.0, 0.0]
    expected = [_enumerated(proxy, gold, n) for n in range(1, 7)]
    assert expected_best_of_n(proxy, gold, range(1, 7)) == pytest.approx(expected)


def test_the_expectation_of_many_is_exact() -> None:
    # Picked by itself among uniform scores: the expected maximum of n of N is n (N + 1) / (n + 1) of ranks 1 .. N.
    ranks = np.arange(1, 3001, dtype=float)
    ns = [1, 10, 1024, 3000]
    assert expected_best_of_n(ranks, ranks, ns) == pytest.approx([n * 3001 / (n + 1) for n in ns], rel=1e-9)
    assert best_of_n_kl(1) == 0.0 and best_of_n_kl(4) == pytest.approx(np.log(4) - 0.75)


def test_the_curve_is_the_mean_over_prompts() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": str(p), "responses": [f"{p}-{k}" for k in range(5)], "scores": rng.normal(size=5).tolist()}
        for p in range(12)
    ]
    rows.append({"prompt": "short", "responses": ["a", "b"], "scores": [0.0, 1.0]})
    data = read_comparisons(rows)
    scores = rng.normal(size=len(data.text_of))
    figures = measure_best_of_n(data, scores, Resampling(data.units, resamples=200))
    assert figures is not None
    assert (figures["gold"], figures["prompts"], figures["responses"], figures["left_out"]) == ("scores", 12, 5, 1)
    assert [point["n"] for point in figures["curve"]] == [1, 2, 4, 5]
    golds = data.human[:60].reshape(12, 5)
    by_hand = [_enumerated(list(a), list(b), 2) for a, b in zip(scores[:60].reshape(12, 5), golds, strict=True)]
    point = figures["curve"][1]
    assert point["gold"] == pytest.approx(np.mean(by_hand))
    assert point["gold_interval"][0] < point["gold"] < point["gold_interval"][1]
    assert figures["curve"][3]["possible"] == pytest.approx(golds.max(axis=1).mean())
    itself = measure_best_of_n(data, data.human, Resampling(data.units, resamples=5))
    assert itself is not None and [point["share"] for point in itself["curve"]] == [None, 1.0, 1.0, 1.0]


def test_a_judge_compares_all_texts_of_a_prompt_each_once() -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": b} for b in ("b", "c")]
    data = read_comparisons(rows)
    assert measure_best_of_n(data, np.zeros(4), Resampling(1, resamples=5)) is None
    judged = np.array([3.0, 1.0, 3.0, 2.0])
    figures = measure_best_of_n(data, np.array([0.0, 1.0, 0.0, 2.0]), Resampling(1, resamples=5), judged)
    assert figures is not None and (figures["gold"], figures["responses"]) == ("judge", 3)
    assert [point["gold"] for point in figures["curve"]] == pytest.approx([2.0, (2 + 2 + 1) / 3, 2.0])
    assert np.isnan(figures["curve"][0]["gold_interval"]).all()
