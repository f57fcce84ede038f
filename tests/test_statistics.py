import math

import numpy as np
import pytest
from scipy.stats import pearsonr

from hf_align.statistics import (
    Resampling,
    bootstrap_interval,
    groups,
    holm,
    pearson,
    resampled_share,
    wilson_interval,
)


def test_pearson_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=20), rng.normal(size=20)
    assert pearson(x, y) == pytest.approx(pearsonr(x, y)[0], abs=1e-12)


def test_pearson_works_along_an_axis() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, 9)), rng.normal(size=(3, 9))
    assert pearson(x, y, axis=1) == pytest.approx([pearsonr(a, b)[0] for a, b in zip(x, y, strict=True)])


def test_a_constant_side_correlates_with_nothing() -> None:
    assert pearson([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0.0


def test_interval_of_a_mean_matches_the_normal_one() -> None:
    values = np.random.default_rng(2).normal(loc=3.0, scale=2.0, size=400)
    low, high = bootstrap_interval(np.mean, values, resamples=4000, seed=5)
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert [low, high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.02)


def test_interval_keeps_rows_together() -> None:
    x = np.random.default_rng(3).normal(size=50)
    # r of x with itself is 1 in every resample only if both are resampled by the same rows.
    assert bootstrap_interval(pearson, x, x, resamples=200) == pytest.approx([1.0, 1.0])


def test_interval_is_repeatable_and_survives_tiny_samples() -> None:
    values = [1.0, 2.0, 4.0]
    assert bootstrap_interval(np.mean, values, seed=1) == bootstrap_interval(np.mean, values, seed=1)
    assert np.isnan(bootstrap_interval(np.mean, [1.0])).all()


def test_groups_are_sorted_by_name() -> None:
    actual = groups(["b", "a", "b"])
    assert list(actual) == ["a", "b"]
    assert actual["b"].tolist() == [0, 2]


@pytest.mark.parametrize(("hits", "rows"), [(7, 10), (0, 5), (400, 400)])
def test_wilson_s_interval_by_its_formula(hits: int, rows: int) -> None:
    share, z2 = hits / rows, 1.959963984540054**2
    middle, half = share + z2 / (2 * rows), math.sqrt(z2 * (share * (1 - share) / rows + z2 / (4 * rows**2)))
    expected = (middle - half) / (1 + z2 / rows), (middle + half) / (1 + z2 / rows)
    assert wilson_interval(share, rows) == pytest.approx(expected, abs=1e-9)


def test_resampled_sums_equal_sums_over_the_drawn_rows() -> None:
    rng = np.random.default_rng(4)
    values, unit = rng.normal(size=(7, 2)), np.array([0, 0, 1, 2, 2, 2, 3])
    resampling = Resampling(4, resamples=60, seed=1)
    sums = resampling.sums(values, unit)
    other = np.array([1, 2, 3, 0, 1, 3, 2])
    pair_sums = resampling.sums(values, unit, other)
    for resample in (0, 59):
        drawn = np.repeat(np.arange(4), resampling.counts[:, resample])
        assert len(drawn) == 4
        expected = sum(values[unit == one].sum(axis=0) for one in drawn)
        assert sums[resample] == pytest.approx(expected)
        pairs = [values[(unit == one) & (other == two)].sum(axis=0) for one in drawn for two in drawn]
        assert pair_sums[resample] == pytest.approx(np.sum(pairs, axis=0))


def test_the_interval_of_a_ratio_is_the_bootstrap_s() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=300)
    ratio, interval = Resampling(300, resamples=4000, seed=2).ratio(values, np.ones(300), np.arange(300))
    assert ratio == pytest.approx(values.mean())
    assert interval == pytest.approx(bootstrap_interval(np.mean, values, resamples=4000), abs=0.02)
    # Ten copies of each row in one unit say nothing new; as rows of their own they would make the interval narrower.
    again = Resampling(300, resamples=4000, seed=2).ratio(
        np.tile(values, 10), np.ones(3000), np.tile(np.arange(300), 10)
    )
    assert again[1] == pytest.approx(interval)
    assert np.isnan(Resampling(1, resamples=5).ratio([1.0], [1.0], [0])[1]).all()


def test_a_resampled_share_has_the_interval_of_drawing_whole_units() -> None:
    rng = np.random.default_rng(0)
    unit = rng.integers(0, 60, 400)
    hits = rng.random(400) < np.where(unit % 2, 0.8, 0.4)
    share, interval = resampled_share(hits, unit)
    expected, ends = Resampling(60).ratio(hits, np.ones(400), unit)
    assert share == expected and interval == pytest.approx(ends, abs=0.01)
    assert np.ptp(interval) > 1.2 * np.ptp(resampled_share(hits, np.arange(400))[1])  # rows of a unit are alike


def test_a_share_of_nothing_or_of_one_unit_has_no_interval() -> None:
    assert np.isnan(resampled_share([], [])[0])
    share, interval = resampled_share([True, False], [3, 3])
    assert share == 0.5 and np.isnan(interval).all()


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_a_share_of_all_or_none_is_as_uncertain_as_its_units_are_few(hit: float) -> None:
    """Three units, however many rows: for all hits z² / (3 + z²) is Wilson's lower end."""
    z2 = 1.959964**2
    ends = [3 / (3 + z2), 1.0] if hit else [0.0, z2 / (3 + z2)]
    hits, unit = [hit] * 6, [0, 0, 0, 1, 1, 2]
    assert resampled_share(hits, unit)[1] == pytest.approx(ends, abs=1e-6)
    assert Resampling(3, resamples=100).share(hits, unit)[1] == pytest.approx(ends, abs=1e-6)
    of_texts = Resampling(6, resamples=100).share(hits[:3], [0, 1, 2], [3, 4, 5])
    assert of_texts == (hit, pytest.approx(ends, abs=1e-6))


def test_any_other_share_and_one_without_interval_stay() -> None:
    resampling = Resampling(4, resamples=100)
    assert resampling.share([0.0, 1.0, 1.0, 0.5], [0, 1, 2, 3]) == resampling.ratio(
        [0.0, 1.0, 1.0, 0.5], np.ones(4), [0, 1, 2, 3]
    )
    assert resampling.share([0.5] * 4, [0, 1, 2, 3])[1] == [0.5, 0.5]
    assert np.isnan(Resampling(1, resamples=100).share([1.0], [0])[1]).all()


def test_holm_by_hand_and_by_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    p = np.random.default_rng(6).random(7) ** 2
    order = sorted(range(7), key=lambda place: p[place])
    for rank, place in enumerate(order):
        rejected_from = max(min(1.0, (7 - i) * p[order[i]]) for i in range(rank + 1))
        assert holm(p)[place] == pytest.approx(rejected_from)
