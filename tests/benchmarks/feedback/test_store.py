import pytest

from benchmarks.feedback.store import kill_writers, time_calls, write_together


def test_a_store_loses_and_doubles_nothing_when_its_writers_are_killed(tmp_path):
    outcomes = kill_writers(tmp_path, kills=5, tasks=600)
    assert [outcome.clean for outcome in outcomes] == [True] * 6, outcomes


@pytest.mark.slow
def test_a_store_loses_and_doubles_nothing_when_its_writers_are_killed_50_times(tmp_path):
    outcomes = kill_writers(tmp_path, kills=50, tasks=20_000, seed=1)
    assert all(outcome.clean for outcome in outcomes), outcomes
    assert outcomes[-1].noted > 50


@pytest.mark.slow
def test_8_writers_at_once_lose_nothing_and_stay_within_what_is_wanted(tmp_path):
    outcome, _ = write_together(tmp_path, writers=8, tasks=300)
    assert outcome.clean and outcome.noted == 600, outcome


def test_calls_are_timed_on_a_store_with_answers(tmp_path):
    figures = time_calls(tmp_path, tasks=40, answers=200, calls=20)
    assert figures["answers"] == 218 and set(figures["lease"]) >= {"median_ms", "p95_ms", "median_cpu_ms"}
