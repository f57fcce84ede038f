"""Dawid-Skene estimation against closed forms, another implementation and planted annotators."""

from __future__ import annotations

import json
from itertools import pairwise, product
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.feedback import dawid_skene, majority_vote

CROWDKIT = json.loads(Path(__file__).with_name("crowdkit.json").read_text())
TURNED = {0: 1, 1: 0}
SKILLS = np.array([0.85] * 14 + [0.55] * 4 + [0.15] * 2)


def planted(
    seed: int, tasks: int = 1000, votes: int = 5, skills: Any = SKILLS
) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Answers of annotators with these skills to tasks with labels 0 and 1, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, tasks).tolist()
    rows = []
    for task in range(tasks):
        for annotator in rng.choice(len(skills), votes, replace=False).tolist():
            rows.append((task, annotator, truth[task] ^ int(rng.random() > skills[annotator])))
    return rows, truth


def accuracy(labels: dict[Any, Any], truth: list[int]) -> float:
    return float(np.mean([labels[task] == label for task, label in enumerate(truth)]))


def calibration_error(probabilities: dict[Any, Any], truth: list[int]) -> float:
    """Expected calibration error: 10 bins of the probability of the more probable label."""
    sure = np.array([max(probabilities[task].values()) for task in range(len(truth))])
    right = np.array([probabilities[task][label] > 0.5 for task, label in enumerate(truth)])
    bins = np.minimum((sure - 0.5) * 20, 9).astype(int)
    return sum(abs((sure - right)[bins == n].sum()) for n in range(10)) / len(truth)


@pytest.mark.parametrize("case", CROWDKIT["cases"], ids=lambda case: case["name"])
def test_equals_the_reference_implementation_without_a_prior(case):
    answers, gold = case["answers"], case["gold"]
    result = dawid_skene(
        answers,
        gold,
        errors=case["errors"],
        smoothing=(0, 0),
        start=majority_vote(answers, gold),
        max_iterations=CROWDKIT["iterations"],
        tolerance=-1.0,
    )
    assert result.iterations == CROWDKIT["iterations"]
    assert result.priors == pytest.approx(case["priors"], abs=1e-6)
    for task, shares in case["probabilities"].items():
        assert result.probabilities[task] == pytest.approx(shares, abs=1e-6), task
    for annotator, rows in case["confusion"].items():
        for true, row in rows.items():
            for given, value in row.items():
                assert result.confusion[annotator][true][given] == pytest.approx(value, abs=1e-6)


def test_one_iteration_equals_the_formulas_by_hand():
    # Shares 2/3 for x on task 1 and 2/3 for y on task 2; annotator c contradicts both.
    answers = [(1, "a", "x"), (1, "b", "x"), (1, "c", "y"), (2, "a", "y"), (2, "b", "y"), (2, "c", "x")]
    result = dawid_skene(answers, smoothing=(0, 0), max_iterations=1)
    # M: a and b give x under x with 2/3 / (2/3 + 1/3), c with 1/3; even priors. E: 2/3 * 2/3 * 2/3 against 1/27.
    assert result.probabilities[1]["x"] == pytest.approx(8 / 9)
    assert result.objective[0] == pytest.approx(2 * log((8 + 1) / 27 / 2))
    assert result.skills == pytest.approx({"a": 8 / 9, "b": 8 / 9, "c": 1 / 9})  # the M step behind it


def test_all_gold_gives_counted_shares_with_pseudo_counts():
    answers = [(n, "a", "x" if n < 6 else "y") for n in range(8)]
    gold = dict.fromkeys(range(8), "x")
    result = dawid_skene(answers, gold, prior={"a": (4.0, 6.0)}, smoothing=(2.0, 1.0), errors="one_coin")
    assert result.confusion["a"]["x"]["x"] == pytest.approx((6 + 4 + 2) / (8 + 10 + 3))
    full = dawid_skene(answers, gold, prior={"a": (4.0, 6.0)}, smoothing=(2.0, 1.0))
    assert full.confusion["a"]["x"]["x"] == pytest.approx((6 + 2 + 1) / (8 + 5 + 1.5))  # half of them under each truth
    assert set(full.labels.values()) == {"x"}


def test_a_track_record_acts_in_every_iteration():
    answers = [(task, name, task % 2 ^ (name == "c")) for task in range(30) for name in "abc"]
    records = {"a": (1.0, 200.0), "b": (1.0, 200.0), "c": (200.0, 1.0)}
    for errors in ("full", "one_coin"):
        result = dawid_skene(answers, prior=records, errors=errors)
        assert all(result.labels[task] != task % 2 for task in range(30))  # c is right, a and b are not
        # At the mode the record still counts: 200 of 201 and 30 of 30, with smoothing.
        assert result.skills["c"] == pytest.approx((200 + 30 + 2) / (201 + 30 + 3), abs=1e-3)
    assert all(dawid_skene(answers).labels[task] == task % 2 for task in range(30))


@pytest.mark.parametrize(
    ("errors", "mirror", "smoothing", "gold", "records"),
    list(product(["full", "one_coin"], [None, {0: 2, 2: 0, 1: 1}], [(0, 0), (2, 1)], [0, 5], [0, 3])),
)
def test_the_objective_never_falls_and_is_the_log_likelihood_with_the_prior(errors, mirror, smoothing, gold, records):
    rng = np.random.default_rng(3)
    answers = [(t, a, int(rng.integers(3) if rng.random() < 0.4 else t % 3)) for t in range(40) for a in range(4)]
    known = {t: t % 3 for t in range(gold)}
    prior = {a: (5.0, 2.0 + a) for a in range(records)}
    options: dict[str, Any] = {"errors": errors, "mirror": mirror, "smoothing": smoothing, "prior": prior}
    result = dawid_skene(answers, known, **options, tolerance=1e-12, max_iterations=2000)
    assert all(after >= before - 1e-7 for before, after in pairwise(result.objective))
    assert result.converged
    expected = 0.0  # the same by plain loops, at the parameters that the last M step came to
    for task in range(40):
        terms = [
            result.priors[j] * np.prod([max(result.confusion[a][j][k], 1e-12) for t, a, k in answers if t == task])
            for j in range(3)
            if known.get(task, j) == j
        ]
        expected += log(sum(terms))
    for a, j, k in product(range(4), range(3), range(3)):
        right, wrong = np.add(prior.get(a, (0, 0)), smoothing)
        expected += (right / 3 if j == k else wrong / 6) * log(max(result.confusion[a][j][k], 1e-12))
    assert result.objective[-1] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("options", [{"errors": "full"}, {"errors": "one_coin"}, {"mirror": {0: 2, 2: 0, 1: 1}}])
def test_the_m_step_is_the_maximum_under_its_symmetries(options):
    rng = np.random.default_rng(5)
    answers = [(t, a, int(rng.choice(3, p=[0.5, 0.3, 0.2]))) for t in range(60) for a in range(2)]
    gold = {t: int(rng.integers(3)) for t in range(60)}
    result = dawid_skene(answers, gold, **options, smoothing=(0, 0))

    def likelihood(confusion: Any) -> float:
        return sum(log(confusion[gold[t]][k]) for t, a, k in answers if a == 0)

    best = {j: dict(row) for j, row in result.confusion[0].items()}
    for _ in range(200):  # any other confusion of the same symmetry is worse
        if options.get("errors") == "one_coin":
            right = rng.uniform(0.05, 0.95)
            other = [[right if j == k else (1 - right) / 2 for k in range(3)] for j in range(3)]
        else:
            other = rng.dirichlet([1, 1, 1], 3)
            if "mirror" in options:
                other[2] = other[0][::-1]
                other[1][0] = other[1][2] = (1 - other[1][1]) / 2
        assert likelihood(other) <= likelihood(best)


def test_mirrored_labels_have_mirrored_errors_and_even_shares():
    answers, _ = planted(0, tasks=60)
    result = dawid_skene(answers, mirror=TURNED)
    assert result.priors == pytest.approx({0: 0.5, 1: 0.5})
    for rows in result.confusion.values():
        assert rows[0][1] == pytest.approx(rows[1][0])


def test_gold_is_pinned_and_also_measures_whoever_outvotes_it():
    answers = [(t, name, 0 if name == "a" else 1) for t in range(20) for name in "abc"]
    result = dawid_skene(answers, dict.fromkeys(range(6), 0))
    assert all(label == 0 for label in result.labels.values())
    assert result.skills["a"] > 0.8 > 0.3 > result.skills["b"]
    assert result.probabilities[0] == {0: 1.0, 1: 0.0}


def test_a_few_gold_labels_turn_a_majority_that_is_wrong():
    answers, truth = planted(0, tasks=200, skills=np.array([0.9] * 8 + [0.2] * 12))
    gold = dict(enumerate(truth[:20]))
    assert accuracy(dawid_skene(answers, mirror=TURNED).labels, truth) < 0.1  # nothing says that most are wrong
    assert accuracy(dawid_skene(answers, gold, mirror=TURNED).labels, truth) > 0.9
    # Gold says so from the start, before the estimation comes to it from the vote.
    assert accuracy(dawid_skene(answers, gold, mirror=TURNED, max_iterations=1).labels, truth) > 0.8
    vote = majority_vote(answers, gold)
    assert accuracy(dawid_skene(answers, gold, mirror=TURNED, max_iterations=1, start=vote).labels, truth) < 0.75


def test_planted_annotators_are_told_apart_within_a_hundredth_of_the_oracle():
    for seed in range(3):
        answers, truth = planted(seed)
        weights = np.log(SKILLS / (1 - SKILLS))
        oracle = np.zeros(len(truth))
        for task, annotator, label in answers:
            oracle[task] += weights[annotator] * (2 * label - 1)
        best = float(np.mean((oracle > 0) == np.array(truth)))
        variants: list[dict[str, Any]] = [{}, {"errors": "one_coin"}, {"mirror": TURNED}]
        for options in variants:
            result = dawid_skene(answers, **options)
            assert accuracy(result.labels, truth) >= best - 0.01
            assert accuracy(result.labels, truth) >= accuracy(majority_vote(answers).labels, truth) + 0.05
            errors = [abs(result.skills[n] - skill) for n, skill in enumerate(SKILLS)]
            assert np.mean(errors) <= 0.03
            assert calibration_error(result.probabilities, truth) <= 0.03


def test_skills_with_gold_are_near_the_shares_of_right_labels():
    for seed in range(3):
        answers, truth = planted(seed)
        result = dawid_skene(answers, dict(enumerate(truth[:50])), mirror=TURNED)
        right = [np.mean([label == truth[task] for task, a, label in answers if a == n]) for n in range(len(SKILLS))]
        assert np.mean([abs(result.skills[n] - share) for n, share in enumerate(right)]) <= 0.02


def test_skills_after_15_tasks_with_3_gold_tell_spammers_from_others():
    skills = np.array([0.85] * 14 + [0.5] * 4 + [0.15] * 2)  # 20% clickers, 10% flippers
    areas = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        answers, truth = [], rng.integers(0, 2, 51).tolist()
        for turn in range(12):  # everybody labels one of four tasks a turn
            for n, annotator in enumerate(rng.permutation(20).tolist()):
                answers.append((4 * turn + n // 5, annotator))
        answers += [(48 + n, annotator) for n in range(3) for annotator in range(20)]
        rows = [(task, a, truth[task] ^ int(rng.random() > skills[a])) for task, a in answers]
        found = dawid_skene(rows, {task: truth[task] for task in (48, 49, 50)}, mirror=TURNED).skills
        areas.append(np.mean([found[good] > found[bad] for good in range(14) for bad in range(14, 20)]))
    assert np.mean(areas) >= 0.95


def test_a_rare_annotator_is_neither_trusted_nor_condemned_for_one_answer():
    answers, truth = planted(0, tasks=200)
    answers += [(0, "rare", truth[0]), (1, "wrong once", 1 - truth[1])]
    result = dawid_skene(answers, mirror=TURNED)
    assert 0.6 < result.skills["rare"] < 0.85
    assert 0.4 < result.skills["wrong once"] < 0.6
    sharp = dawid_skene(answers, mirror=TURNED, smoothing=(0, 0))
    assert sharp.skills["rare"] > 0.95 or sharp.skills["wrong once"] < 0.05


def test_results_are_the_same_each_time_and_in_any_order_of_answers():
    answers, truth = planted(1, tasks=200)
    one, again, turned = dawid_skene(answers), dawid_skene(answers), dawid_skene(answers[::-1])
    assert one == again
    for task in range(len(truth)):
        assert turned.probabilities[task][1] == pytest.approx(one.probabilities[task][1], abs=1e-6)


def test_one_label_one_task_and_one_annotator_do():
    result = dawid_skene([("t", "a", "x")])
    assert result.labels == {"t": "x"} and result.skills == {"a": 1.0}
    assert dawid_skene([("t", "a", "x")], {"u": "y"}).labels == {"t": "x", "u": "y"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"errors": "two"}, "errors is 'two'; use one of full, one_coin"),
        ({"prior": {"a": (1.0, -1.0)}}, r"prior of 'a' is \(1.0, -1.0\)"),
        ({"smoothing": (1.0,)}, r"smoothing is \(1.0,\)"),
        ({"mirror": {"x": "y", "y": "y"}}, "mirror doesn't turn label 'x'"),
        ({"max_iterations": 0}, "max_iterations is 0"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message):
    with pytest.raises(UserError, match=message):
        dawid_skene([("t", "a", "x")], **options)
