"""Intervals over prompts and seeds: by hand, against drawn bootstraps and t tests, and their coverage by simulation."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import t as student, trim_mean, ttest_1samp

from hf_align.evaluation.grid.crossed import crossed_length_controlled, crossed_mean, interquartile_mean
from hf_align.pair_statistics import length_controlled
from hf_align.statistics import Resampling


def table_of(rng: np.random.Generator, seeds: int, effects: tuple[float, float, float], prompts: int = 200):
    """`[S, P]` with mean 0 and standard deviations of seeds, prompts and single responses."""
    of_seed, of_prompt, of_response = effects
    return (
        rng.normal(0, of_seed, (seeds, 1))
        + rng.normal(0, of_prompt, prompts)
        + rng.normal(0, of_response, (seeds, prompts))
    )


def test_two_seeds_and_three_prompts_by_hand() -> None:
    # Means of seeds 1 and 3, so V_s = (1 + 1) / 2 = 1; of prompts 1, 2, 3, so V_p = (1 + 1) / 6 = 1/3.
    estimate = crossed_mean(np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]))
    degrees = (4 / 3) ** 2 / (1 / 1 + (1 / 3) ** 2 / 2)
    half = student.ppf(0.975, degrees) * np.sqrt(4 / 3)
    assert estimate.value == 2 and estimate.by_seed == [1, 3] and estimate.over == "prompts and seeds"
    assert estimate.interval == pytest.approx([2 - half, 2 + half])
    assert estimate.p == pytest.approx(2 * student.sf(2 / np.sqrt(4 / 3), degrees))


def test_the_variance_is_what_drawing_seeds_and_drawing_prompts_gives() -> None:
    rng = np.random.default_rng(0)
    table = table_of(rng, 5, (0.2, 0.3, 0.5), prompts=30)
    rows, columns = rng.integers(0, 5, (20000, 5)), rng.integers(0, 30, (20000, 30))
    of_seeds = table.mean(axis=1)[rows].mean(axis=1).var() * 5 / 4  # n draws of n spread by (n - 1)/n too little
    of_prompts = table.mean(axis=0)[columns].mean(axis=1).var() * 30 / 29
    degrees = (of_seeds + of_prompts) ** 2 / (of_seeds**2 / 4 + of_prompts**2 / 29)
    half = student.ppf(0.975, degrees) * np.sqrt(of_seeds + of_prompts)
    low, high = crossed_mean(table).interval
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize("trained", [True, False])
def test_without_other_trainings_it_is_the_t_test_over_prompts(trained: bool) -> None:
    table = table_of(np.random.default_rng(1), 1 if trained else 3, (0.5, 0.3, 0.5), prompts=25) + 0.2
    estimate, test = crossed_mean(table, trained=trained), cast(Any, ttest_1samp(table.mean(axis=0), 0))
    assert estimate.interval == pytest.approx(list(test.confidence_interval()))
    assert estimate.p == pytest.approx(test.pvalue) and estimate.over == "prompts"
    assert len(estimate.by_seed) == len(table)


def test_ends_and_tables_without_spread() -> None:
    assert crossed_mean(np.array([[1.0, 1.0, 0.0]]), bounds=(0, 1)).interval[1] == 1
    same = crossed_mean(np.full((3, 4), 0.5))
    assert same.interval == [0.5, 0.5] and same.p == 0 and crossed_mean(np.zeros((3, 4))).p == 1
    assert crossed_mean(np.full((3, 4), 0.5), null=0.5).p == 1 and np.isnan(crossed_mean(np.eye(3), null=np.nan).p)
    one = crossed_mean(np.array([[1.0], [2.0]]))
    assert one.value == 1.5 and np.isnan(one.interval).all() and np.isnan(one.p)


COVERED = {2: (0.86, 0.99), 3: (0.90, 0.99), 5: (0.925, 0.99)}
"""Least and most coverage of 95% intervals by number of seeds, whatever the effects."""


def coverage(seeds: int, effects: tuple[float, float, float], tables: int) -> float:
    """Share of simulated tables whose interval holds the true mean."""
    rng = np.random.default_rng([seeds, int(100 * effects[0])])
    intervals = [crossed_mean(table_of(rng, seeds, effects, prompts=100)).interval for _ in range(tables)]
    return float(np.mean([low <= 0 <= high for low, high in intervals]))


@pytest.mark.parametrize(("seeds", "effect"), [(2, 0.03), (3, 0.15), (5, 0.0)])
def test_coverage(seeds: int, effect: float) -> None:
    low, high = COVERED[seeds]
    assert low - 0.02 <= coverage(seeds, (effect, 0.3, 0.5), 500) <= high


@pytest.mark.slow
@pytest.mark.parametrize("seeds", COVERED)
@pytest.mark.parametrize("effect", [0.0, 0.02, 0.05, 0.15])
def test_coverage_of_all(seeds: int, effect: float) -> None:
    low, high = COVERED[seeds]
    assert low <= coverage(seeds, (effect, 0.3, 0.5), 10000) <= high


def test_length_control_agrees_with_drawn_prompts() -> None:
    rng = np.random.default_rng(3)
    longer = rng.normal(3, 8, (1, 150))
    wins = (rng.random((1, 150)) < 1 / (1 + np.exp(-0.4 - 0.08 * longer))).astype(float)
    estimate = crossed_length_controlled(wins, longer)
    drawn = length_controlled(wins[0], longer[0], Resampling(150, resamples=1000), np.arange(150))
    assert estimate.value == pytest.approx(drawn["length_controlled"]) == pytest.approx(estimate.by_seed[0])
    assert estimate.interval == pytest.approx(drawn["length_controlled_interval"], abs=0.02)


def test_length_control_at_its_limits() -> None:
    longer = np.linspace(-5, 5, 20).reshape(2, 10)
    always = crossed_length_controlled(np.ones((2, 10)), longer)
    assert always.value == pytest.approx(1) and np.isnan(always.interval).all()
    assert np.isnan(crossed_length_controlled(np.ones((2, 10)), np.full((2, 10), 3.0)).value)
    half = crossed_length_controlled(np.full((2, 10), 0.5), longer)
    assert half.value == pytest.approx(0.5) and half.interval == pytest.approx([0.5, 0.5])


def test_the_middle_half_of_the_seeds() -> None:
    outlier = np.array([[0.0], [1.0], [2.0], [3.0], [100.0]]) * np.ones(10)
    assert interquartile_mean(outlier, resamples=10)[0] == 2
    table = table_of(np.random.default_rng(4), 6, (0.1, 0.3, 1.0), prompts=50)
    rng, drawn = np.random.default_rng(5), []
    for _ in range(500):
        prompts, seeds = rng.integers(0, 50, 50), rng.integers(0, 6, 6)
        drawn.append(trim_mean(table[np.ix_(seeds, prompts)].mean(axis=1), 0.25))
    assert interquartile_mean(table)[1] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.06)
