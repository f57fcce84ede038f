"""The stop rule, on outcomes counted by hand and on planted scores."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from hf_align.errors import UserError
from hf_align.evaluation.win_rate import wins_of
from hf_align.experiments.improvement.config import ImprovementConfig
from hf_align.experiments.improvement.rule import Verdict, apply_rule, detectable_fall, resamples_for
from hf_align.statistics import Resampling

PROMPTS, ROUNDS = 200, 3
CONFIG = ImprovementConfig(rounds=ROUNDS)
RESAMPLES = resamples_for(CONFIG.error_of_a_test, CONFIG.resamples)
UNITS = np.arange(PROMPTS)
GAINS = (0.05, 0.1, 0.3, 0.6)


@pytest.fixture(scope="module")
def resampling() -> Resampling:
    return Resampling(PROMPTS, resamples=RESAMPLES)


def verdict(held_out: NDArray[np.float64], training: NDArray[np.float64] | None, resampling: Resampling) -> Verdict:
    error, share = CONFIG.error_of_a_test, CONFIG.gain_share
    return apply_rule(held_out, training, resampling, UNITS, error=error, gain_share=share)


def stopped_share(quality: float, length: float, judge_of_length: bool, resampling: Resampling, runs: int) -> float:
    """Share of planted runs of `ROUNDS` rounds that are stopped.

    A response has a quality and a length, both normal; a round adds to their means. The held-out judge sees the quality
    with noise, the training judge the length, or the quality with noise of its own.
    """
    rng, stopped = np.random.default_rng(1), 0
    for _ in range(runs):
        for _ in range(ROUNDS):
            old, new = (rng.normal(size=(3, PROMPTS)) for _ in range(2))  # quality, two noises
            new[0] += quality
            held_out = wins_of(new[0] + new[1], old[0] + old[1])
            seen_new, seen_old = new[0] + new[2], old[0] + old[2]
            if judge_of_length:
                seen_new, seen_old = rng.normal(size=PROMPTS) + length, rng.normal(size=PROMPTS)
            if verdict(held_out, wins_of(seen_new, seen_old), resampling).stop:
                stopped += 1
                break
    return stopped / runs


def test_a_fall_beyond_its_exact_binomial_bound_stops_and_a_smaller_one_does_not(resampling: Resampling) -> None:
    # Without ties the number of wins is binomial: the exact one-sided bound, less and more than it by two wins.
    bound = int(binom.ppf(CONFIG.error_of_a_test, PROMPTS, 0.5))
    for wins, falls in ((bound - 2, True), (bound + 2, False)):
        outcomes = np.zeros(PROMPTS)
        outcomes[:wins] = 1
        result = verdict(outcomes, None, resampling)
        assert (result.falls, result.stop, result.training) == (falls, falls, None)
        assert result.held_out == pytest.approx(wins / PROMPTS)


@pytest.mark.parametrize(
    ("training_wins", "held_out_wins", "outruns", "better"),
    [(180, 100, True, False), (180, 101, True, False), (180, 160, False, True), (100, 104, False, True)],
)
def test_a_gain_that_only_the_training_judge_sees_stops(
    training_wins: int, held_out_wins: int, outruns: bool, better: bool, resampling: Resampling
) -> None:
    training, held_out = (np.random.default_rng(3).permutation(PROMPTS) < n for n in (training_wins, held_out_wins))
    result = verdict(held_out.astype(float), training.astype(float), resampling)
    assert (result.outruns, result.better, result.falls) == (outruns, better, False)


def test_a_held_out_judge_that_sees_its_demanded_share_does_not_stop_though_its_gain_is_insignificant() -> None:
    n = 20
    held_out, training = np.zeros(n), np.ones(n)
    held_out[: n * 7 // 10] = 1
    result = apply_rule(held_out, training, Resampling(n), np.arange(n), error=0.01, gain_share=1 / 3)
    assert result == Verdict(0.7, 1.0, falls=False, outruns=False, better=True)


def test_rows_of_one_prompt_count_as_one_draw() -> None:
    held_out, one = np.zeros(40), np.zeros(40, dtype=int)
    assert not apply_rule(held_out, None, Resampling(1), one, error=0.01, gain_share=0.5).stop
    outcomes, two = np.repeat([0.0, 1.0], [30, 10]), np.repeat([0, 1], [30, 10])
    assert not apply_rule(outcomes, None, Resampling(2), two, error=0.01, gain_share=0.5).stop
    assert apply_rule(outcomes, None, Resampling(40), np.arange(40), error=0.01, gain_share=0.5).stop


def test_losses_on_so_few_prompts_that_chance_makes_them_as_often_do_not_stop(resampling: Resampling) -> None:
    # All of n changed prompts are lost by chance in 2^-n of runs, which is below the error rate from n = 7 on.
    assert 2.0**-6 > CONFIG.error_of_a_test > 2.0**-7
    for lost in (5, 6, 8):
        outcomes = np.where(np.arange(PROMPTS) < lost, 0.0, 0.5)
        assert verdict(outcomes, None, resampling).falls == (lost == 8)
    # A gain at the demanded third of the training judge's loses on two of three prompts: (2/3)^n.
    assert (2 / 3) ** 11 > CONFIG.error_of_a_test > (2 / 3) ** 12
    for gained in (9, 11, 14):
        training = np.where(np.arange(PROMPTS) < gained, 1.0, 0.5)
        assert verdict(np.full(PROMPTS, 0.5), training, resampling).outruns == (gained == 14)


def test_ties_alone_neither_stop_nor_are_better(resampling: Resampling) -> None:
    result = verdict(np.full(PROMPTS, 0.5), np.full(PROMPTS, 0.5), resampling)
    assert not result.stop and not result.better


@pytest.mark.parametrize("runs", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_a_run_in_which_nothing_changes_is_stopped_no_more_often_than_promised(
    runs: int, resampling: Resampling
) -> None:
    share = stopped_share(0.0, 0.0, False, resampling, runs)
    # The promise is 5% of runs; a binomial count lies beyond this bound with probability 1e-3.
    assert share <= binom.ppf(1 - 1e-3, runs, CONFIG.false_stop) / runs


@pytest.mark.parametrize(("gain", "runs"), [(0.3, 30), *(pytest.param(g, 300, marks=pytest.mark.slow) for g in GAINS)])
def test_a_true_judge_is_stopped_in_less_than_one_of_ten_runs(gain: float, runs: int, resampling: Resampling) -> None:
    assert stopped_share(gain, 0.0, False, resampling, runs) <= 0.1


@pytest.mark.slow
def test_a_judge_of_length_is_stopped_in_nearly_all_runs_whether_quality_stays_or_falls(resampling: Resampling) -> None:
    for quality in (0.0, -0.2):
        assert stopped_share(quality, 2.0, True, resampling, 100) >= 0.95


def test_a_judge_of_length_is_stopped_in_the_first_round() -> None:
    resampling, rng, stopped = Resampling(PROMPTS, resamples=RESAMPLES), np.random.default_rng(2), 0
    for _ in range(50):
        held_out = wins_of(rng.normal(size=PROMPTS), rng.normal(size=PROMPTS))  # quality stays
        training = wins_of(rng.normal(size=PROMPTS) + 2.0, rng.normal(size=PROMPTS))  # length grows
        stopped += verdict(held_out, training, resampling).stop
    assert stopped >= 45


def test_the_detectable_fall_is_found_with_probability_of_four_in_five() -> None:
    error = CONFIG.error_of_a_test
    fall = detectable_fall(PROMPTS, error)
    critical = 0.5 - norm.isf(error) * 0.5 / np.sqrt(PROMPTS)
    power = binom.cdf(np.floor(critical * PROMPTS), PROMPTS, 0.5 - fall)
    assert power == pytest.approx(0.8, abs=0.05)
    assert resamples_for(0.001, 200) == 20_000 and resamples_for(0.25, 200) == 200


def test_an_error_rate_that_no_bootstrap_can_measure_is_refused() -> None:
    with pytest.raises(UserError, match=r"raise false_stop to 0\.002$"):
        ImprovementConfig(rounds=10, false_stop=0.001)
