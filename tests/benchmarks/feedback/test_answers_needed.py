"""The study of answers needed, on a few made-up sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.feedback.answers_needed import METHODS, Texts, figures, needed, run_full, run_one, stored
from hf_align.data.embedded.ratings import DOMAINS


@pytest.fixture(scope="module")
def texts() -> Texts:
    """60 texts a domain with features of length 1, whose first says the mean rating."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(180, 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    votes = [np.clip(np.rint(6 * row[0] + rng.normal(size=10)), -4, 4) for row in features]
    splits = np.array((["train"] * 40 + ["test"] * 20) * 3)
    return Texts(features, votes, np.array([each.mean() for each in votes]), np.repeat(DOMAINS, 60), splits)


def test_pairs_are_of_different_training_texts_of_one_domain(texts: Texts) -> None:
    pairs = texts.draw(np.random.default_rng(0), 500)
    assert pairs.shape == (500, 2) and (pairs[:, 0] != pairs[:, 1]).all()
    assert (texts.domains[pairs[:, 0]] == texts.domains[pairs[:, 1]]).all()
    assert set(texts.splits[pairs.ravel()]) == {"train"}


def test_answers_agree_with_the_votes_on_average(texts: Texts) -> None:
    pairs = texts.draw(np.random.default_rng(0), 20)
    answers = np.concatenate([texts.answer(np.random.default_rng(n), pairs, 3) for n in range(60)])
    assert set(np.unique(answers)) <= {0.0, 0.5, 1.0}
    np.testing.assert_allclose(answers.mean(0), texts.shares(pairs), atol=0.15)


def test_a_pairs_answers_are_of_different_people(texts: Texts) -> None:
    two = replace(texts, votes=[np.arange(10), np.full(10, 4.5)])
    drawn = two.answer(np.random.default_rng(0), np.array([[0, 1]]), 10)
    assert drawn.mean() == 0.5  # each of the ten votes once: five above, five below


def test_the_answers_needed_are_where_the_risen_curve_meets_the_target() -> None:
    r = np.array([0.2, 0.4, 0.3, 0.6])
    assert needed([10, 20, 40, 80], r, 0.4) == pytest.approx(20)
    assert needed([10, 20, 40, 80], r, 0.5) == pytest.approx(40 * 2**0.5)
    assert needed([10, 20, 40, 80], r, 0.1) == 10
    assert needed([10, 20, 40, 80], r, 0.7) == float("inf")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_learns_from_as_many_answers(texts: Texts, method) -> None:
    run = run_one(texts, method, 0, 0.35, 100, sizes=(60, 99, 150))
    again = run_one(texts, method, 0, 0.35, 100, sizes=(60, 99, 150))
    assert run["sizes"].tolist() == [60, 99, 150] and (run["scores"] == again["scores"]).all()
    assert np.corrcoef(run["scores"][-1], texts.mean)[0, 1] > 0.8


def test_figures_compare_each_method_with_random(texts: Texts) -> None:
    full = run_full(texts, 0, 0.35)["scores"]
    noise = np.random.default_rng(0).normal(size=180)
    runs = {
        "random": ([10, 20, 40], np.stack([[full + 3 * noise, full + noise, full]])),
        "better": ([10, 20, 40], np.stack([[full + noise, full, full]])),
        "worse": ([10, 20, 40], np.stack([[-full, -full, -full]])),
    }
    result = figures(texts, runs, full[None], "test", resamples=100)
    methods = result["methods"]
    for name, share in (("random", 1), ("better", 0.5)):
        assert methods[name]["needed"]["0.98"]["of_random"] == pytest.approx(share, abs=0.01)
    assert methods["worse"]["needed"]["0.9"] == {"answers": None, "of_random": None, "interval": [None, None]}
    low, high = methods["random"]["r_interval"][0]
    assert low < methods["random"]["r"][0] < high


def test_a_run_that_is_stored_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    first = stored(path, lambda: {"scores": np.arange(3)})
    second = stored(path, lambda: {"scores": np.zeros(3)})
    assert first["scores"].tolist() == second["scores"].tolist() == [0, 1, 2]
