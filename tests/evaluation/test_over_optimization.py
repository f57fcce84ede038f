"""Courses of proxy and judge, and the rule that calls a run over-optimised."""

import math

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.evaluation.best_of_n import best_of_n_kl
from hf_align.evaluation.over_optimization import Course, best_of_n_course, fall_from_best, is_over_optimized


def test_best_of_n_course_finds_where_the_proxy_misleads() -> None:
    # The judge likes a middle amount of what the proxy likes without end.
    proxy = np.random.default_rng(0).normal(size=(30, 256))
    judge = proxy - 0.4 * np.maximum(proxy, 0) ** 2
    course = best_of_n_course(list(proxy), list(judge))
    assert course.at == [2**power for power in range(9)]
    figures = course.figures(resamples=200)
    curve = figures["curve"]
    assert [point["kl"] for point in curve] == pytest.approx([best_of_n_kl(n) for n in course.at])
    assert curve[0]["proxy"] == pytest.approx(proxy.mean()) and curve[-1]["judge"] == pytest.approx(
        judge[np.arange(30), proxy.argmax(1)].mean()
    )
    assert all(point["judge_interval"][0] < point["judge"] < point["judge_interval"][1] for point in curve)
    assert 0 < figures["best"] < 8 and figures["fit"]["turns"]
    low, high = figures["fit"]["turning_interval"]
    assert low <= curve[figures["best"]]["kl"] * 1.6 and high >= curve[figures["best"]]["kl"] * 0.6
    assert figures["fall"] == pytest.approx(curve[figures["best"]]["judge"] - curve[-1]["judge"])
    assert figures["fall_interval"][0] > 0 and f"the last is {figures['fall']:.3g} lower" in figures["sentence"]
    assert (figures["proxy_sd"], figures["prompts"]) == (pytest.approx(proxy.std()), 30)


def test_prompts_with_different_numbers_of_samples_share_the_sizes_they_have() -> None:
    course = best_of_n_course([[1.0, 2.0, 3.0], [5.0, 4.0]], [[0.0, 1.0, 5.0], [2.0, 4.0]])
    assert course.at == [1, 2] and course.judge == pytest.approx(np.array([[2.0, 11 / 3], [3.0, 2.0]]))
    few = course.figures(resamples=5)
    assert few["fit"] is None and "No turning point can be named yet" in few["sentence"]
    assert np.isnan(few["curve"][0]["judge_interval"]).all()
    for proxy, judge, ns, message in (
        ([[1.0]], [[1.0, 2.0]], None, "prompt 0 has 1 scores of the proxy and 2 of the judge"),
        ([[1.0, 2.0]], [[1.0, math.inf]], None, "prompt 0 has a score that is NaN or infinite"),
        ([[1.0, 2.0]], [[1.0, 2.0]], [1, 4], "ascending sizes from 1 to 2"),
        ([[1.0]], [], None, "1 prompts and judge of 0"),
    ):
        with pytest.raises(UserError, match=message):
            best_of_n_course(proxy, judge, ns)


def test_a_course_survives_json_bitwise() -> None:
    rng = np.random.default_rng(1)
    kl, proxy, judge = rng.normal(size=(3, 3, 2))
    course = Course("rl", [0, 4], kl, proxy, judge, 0.1, 0.3)
    again = Course.from_json(course.to_json())
    assert again.at == course.at and again.figures(resamples=5) == course.figures(resamples=5)
    for name in ("kl", "proxy", "judge"):
        assert np.array_equal(getattr(again, name), getattr(course, name))


def test_a_fall_is_sure_beyond_its_paired_interval() -> None:
    offsets = np.array([0.0, 5.0, -3.0, 1.0])  # prompts differ far more than a prompt's scores do
    scores = np.stack([offsets, offsets + 1.0, offsets + np.array([0.4, 0.6, 0.5, 0.5])], axis=1)
    fall = fall_from_best(scores)
    assert (fall.best, fall.fall) == (1, pytest.approx(0.5)) and fall.is_sure
    # By hand: differences .6 .4 .5 .5 have sd .0816; t at 1 - .025/2 with 3 degrees of freedom is 4.1765.
    assert fall.interval[1] - fall.fall == pytest.approx(4.1765 * 0.081650 / 2, rel=1e-4)
    assert not fall_from_best(scores[:, :2]).is_sure  # the last is the best
    assert not fall_from_best(scores[:1]).is_sure  # one prompt says nothing


def test_a_flat_course_is_seldom_called_over_optimised() -> None:
    rng, called = np.random.default_rng(0), np.zeros(2)
    for _ in range(200):
        judge, proxy = rng.normal(size=(20, 8)), rng.normal(size=(20, 8)) + np.arange(8)
        for place, patience in enumerate((1, 2)):
            called[place] += any(is_over_optimized(proxy[:, :end], judge[:, :end], patience) for end in range(2, 9))
    assert called[0] / 200 < 7 * 0.025 and called[1] / 200 < 0.05  # of 7 looks, each wrong in 2.5% at most


def test_over_optimised_is_the_judge_down_while_the_proxy_is_not_for_as_long_as_patience() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.05, size=(2, 30, 7))
    up, bent = np.arange(7.0), np.array([0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0])
    proxy, judge = up + noise[0], bent + noise[1]
    assert [is_over_optimized(proxy[:, :end], judge[:, :end], 2) for end in range(1, 8)] == [False] * 4 + [True] * 3
    assert not is_over_optimized(bent + noise[0], judge, 2)  # both fall: not over-optimisation
    assert not is_over_optimized(proxy, up + noise[1], 2)
    recovering = np.array([0.0, 1.0, 2.0, 1.5, 2.1, 1.5, 2.2]) + noise[1]
    assert not any(is_over_optimized(proxy[:, :end], recovering[:, :end], 2) for end in range(1, 8))
