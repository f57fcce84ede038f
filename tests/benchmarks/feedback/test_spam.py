"""Simulated people with planted spam, and what is fitted to their answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.special import expit

from benchmarks.feedback.spam import ARMS, CLICKERS, FLIPPERS, GOLD_TASKS, VOTES, auroc, fit, run, simulate
from benchmarks.study.cache import CachedTexts
from hf_align.data.embedded.ratings import DOMAINS


@pytest.fixture(scope="module")
def cache() -> CachedTexts:
    """40 texts of each domain in training, 12 in each other split, rated around their place."""
    rng = np.random.default_rng(0)
    texts = []
    for domain in DOMAINS:
        for split, count in (("train", 40), ("validation", 12), ("test", 12)):
            for _ in range(count):
                quality = rng.uniform(-3, 3)
                ratings = np.clip(np.rint(rng.normal(quality, 1, 10)), -4, 4).tolist()
                texts.append({"split": split, "domain": domain, "ids": [0], "ratings": ratings})
                texts[-1]["mean"] = float(np.mean(ratings))
    return CachedTexts(torch.zeros(1, 1), {}, texts)


def test_spam_changes_only_spammers_answers(cache):
    answers = simulate(cache, 90, seed=1)
    asked = [id for id, task in answers.tasks.items() if task.gold is None]
    assert (len(asked), len(answers.tasks) - len(asked)) == (90, GOLD_TASKS)
    votes = Counter(answer.task_id for answer in answers.clean if answers.tasks[answer.task_id].gold is None)
    assert set(votes.values()) == {VOTES}
    assert len({(answer.task_id, answer.annotator) for answer in answers.clean}) == len(answers.clean)
    clicks = []
    for honest, given in zip(answers.clean, answers.spam, strict=True):
        assert honest.preference is not None and given.preference is not None
        name = int(given.annotator)
        if name < CLICKERS:
            clicks.append(given.preference)
        else:
            flips = name < CLICKERS + FLIPPERS
            assert given.preference == (1 - honest.preference if flips else honest.preference)
    assert set(clicks) == {0.0, 1.0}
    gold = [answer for answer in answers.clean if answers.tasks[answer.task_id].gold is not None]
    right = np.mean([answer.preference == answers.tasks[answer.task_id].gold for answer in gold])
    assert len(gold) / len(answers.clean) == pytest.approx(0.1, abs=0.05) and right > 0.8
    assert simulate(cache, 90, seed=1) == answers


def test_the_fit_has_no_gradient_at_its_end():
    rng = np.random.default_rng(0)
    states, labels = rng.normal(size=(50, 4)), rng.choice([0.0, 0.5, 1.0], 200)
    first, second = rng.integers(0, 50, (2, 200))
    weights = fit(states, first, second, labels, 0.1)
    gaps = states[first] - states[second]
    assert gaps.T @ (expit(gaps @ weights) - labels) / 200 + 0.1 * weights == pytest.approx(np.zeros(4), abs=1e-4)


def test_every_arm_is_scored_and_spammers_have_less_skill(cache):
    states = np.array([[row["mean"], 1.0] for row in cache.texts])
    found = run(cache, states, 240, seed=0, stored={})
    assert set(found["r"]) == {arm.name for arm in ARMS}
    assert all(len(scores) == len(cache.texts) for scores in found["scores"].values())
    assert found["r"]["clean, majority"] > 0.99  # the state is the mean rating
    assert found["skills"]["honest"] > found["skills"]["clickers"] > found["skills"]["flippers"]
    assert found["auroc"] > 0.9


def test_a_stored_run_gets_the_arms_that_it_lacks(cache):
    states = np.array([[row["mean"], 1.0] for row in cache.texts])
    whole = run(cache, states, 240, seed=0, stored={})
    kept = {arm.name: 2.0 for arm in ARMS[2:]}
    part = run(cache, states, 240, seed=0, stored={"r": dict(kept), "scores": {key: [] for key in kept}})
    assert part["r"] == {**{arm.name: whole["r"][arm.name] for arm in ARMS[:2]}, **kept}


def test_auroc_counts_pairs():
    scores, positive = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    assert auroc(scores, positive) == (1 + 0.5 + 1 + 1) / 4
