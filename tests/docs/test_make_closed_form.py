"""The page on closed forms shows the figures of its results file."""

import json

import pytest

from docs.make_closed_form import ELSEWHERE, FIGURE, METHODS, PAGE, RESULTS, SEEDS, page


def test_the_committed_page_is_current():
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(results), "run `python -m docs.make_closed_form`"
    assert FIGURE.exists()


def test_every_committed_run_reached_its_optimum():
    runs = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"]
    assert [(run["method"], run["seed"]) for run in runs] == [(method, seed) for method in METHODS for seed in SEEDS]
    for run in runs:
        assert run["distances"][0] > 0.15 and (run["distances"][-1] < 0.05) is (run["method"] not in ELSEWHERE)
        assert sum(run["end"]) == pytest.approx(1, abs=1e-3) == sum(run["optimum"])
