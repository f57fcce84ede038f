"""What is asked next, on records."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.feedback import Prompt, Response, Task
from hf_align.feedback.collection.choose import choose_tasks, disagreement


def made(count: int) -> tuple[list[Task], dict[str, list[float]]]:
    """Tasks of one pair each, and scores of four members that disagree more the later the task."""
    tasks, scores, rng = [], {}, random.Random(0)
    for number in range(count):
        prompt = Prompt(f"Question {number}")
        one, other = Response(prompt.id, "yes", "a"), Response(prompt.id, "no", "b")
        tasks.append(Task.of(one, other, wanted=1))
        spread = 0.1 * number
        scores[one.id] = [spread * side + rng.gauss(0, 1e-3) for side in (1, -1, 1, -1)]
        scores[other.id] = [0.0] * 4
    return tasks, scores


def test_disagreement_is_the_variance_of_the_members_preferences() -> None:
    log_odds = np.random.default_rng(0).normal(size=(5, 7))
    p = 1 / (1 + np.exp(-log_odds))
    np.testing.assert_allclose(disagreement(log_odds), ((p - p.mean(0)) ** 2).mean(0))


@pytest.mark.parametrize("method", ["random", "disagreement", "information"])
def test_the_choice_depends_on_the_seed_and_the_candidates_and_not_on_their_order(method) -> None:
    tasks, scores = made(40)
    chosen = choose_tasks(tasks, scores, method, 10, seed=3)
    assert [task.id for task in choose_tasks(tasks[::-1], scores, method, 10, seed=3)] == [task.id for task in chosen]
    assert len({task.id for task in chosen}) == 10


def test_random_choice_differs_by_seed_and_round_and_needs_no_model() -> None:
    tasks, _ = made(40)
    sets = {
        frozenset(task.id for task in choose_tasks(tasks, None, "random", 10, seed=seed, round=number))
        for seed in (0, 1)
        for number in (0, 1)
    }
    assert len(sets) == 4


@pytest.mark.parametrize("method", ["disagreement", "information"])
def test_pairs_that_members_disagree_about_are_asked_first_and_the_choice_is_kept(method) -> None:
    tasks, scores = made(40)
    tasks = [Task(**{**vars_of(task), "choice": {"pool": "kept"}}) for task in tasks]
    chosen = choose_tasks(tasks, scores, method, 3, round=2, model="four heads")
    assert {task.id for task in chosen} <= {task.id for task in tasks[20:]}
    first = chosen[0].choice
    assert first["pool"] == "kept" and first["method"] == method and first["round"] == 2
    assert first["model"] == "four heads" and first["score"] == max(task.choice["score"] for task in chosen)


def vars_of(task: Task) -> dict:
    return {name: getattr(task, name) for name in task.__dataclass_fields__}


def test_a_batch_by_information_covers_what_disagreement_asks_again() -> None:
    tasks, scores = made(40)
    for number, task in enumerate(tasks):  # members 0 and 1 differ most in many tasks, 2 and 3 less in ten
        scores[task.first_id] = [3.0, -3.0, 0.0, 0.0] if number < 30 else [0.0, 0.0, 2.0, -2.0]
        scores[task.second_id] = [0.0] * 4
    others = {task.id for task in tasks[30:]}
    assert not others & {task.id for task in choose_tasks(tasks, scores, "disagreement", 8)}
    assert others & {task.id for task in choose_tasks(tasks, scores, "information", 8)}


def test_fewer_candidates_than_asked_for_are_all_chosen() -> None:
    tasks, scores = made(3)
    assert len(choose_tasks(tasks, scores, "information", 10)) == 3
    assert choose_tasks([], scores, "disagreement", 10) == []


@pytest.mark.parametrize(
    ("scores", "method", "message"),
    [
        (None, "disagreement", "needs the scores of an ensemble"),
        ({}, "information", "has no scores"),
        ("one", "information", "give two or more"),
        ("ragged", "disagreement", "as many members"),
        ("nan", "disagreement", "not a finite number"),
        (None, "best", "unknown; use one of random, disagreement, information"),
    ],
)
def test_a_method_without_its_model_is_refused_in_one_sentence(scores, method, message: str) -> None:
    tasks, given = made(3)
    kinds = {
        "one": {id: values[:1] for id, values in given.items()},
        "ragged": {id: values[: 2 + number] for number, (id, values) in enumerate(list(given.items()))},
        "nan": {id: [float("nan")] * 4 for id in given},
    }
    with pytest.raises(UserError, match=message):
        choose_tasks(tasks, kinds[scores] if isinstance(scores, str) else scores, method, 2)


@pytest.mark.parametrize("by", ["members", "features"])
def test_no_response_is_asked_about_much_more_often_than_others(by) -> None:
    prompt = Prompt("Which?")
    star, *others = (Response(prompt.id, f"text {number}", "a") for number in range(13))
    tasks = [Task.of(star, other, wanted=1) for other in others]
    tasks += [Task.of(*pair, wanted=1) for pair in pairwise(others)]
    rng = np.random.default_rng(0)
    values = {each.id: 0.1 * rng.normal(size=4) for each in others} | {star.id: np.full(4, 5.0) * [1, -1, 1, -1]}
    given = {"members": {"member_scores": values}, "features": {"member_scores": None, "features": values}}[by]
    asked = tasks[:1]
    chosen = choose_tasks(tasks[1:], method="information", n=12, asked=asked, **given)
    assert len(chosen) == 12 and len({task.id for task in chosen}) == 12
    counts = Counter(id for task in (*asked, *chosen) for id in (task.first_id, task.second_id))
    assert counts[star.id] == 5  # 13 pairs of 13 responses: 2 on average, twice that, and one more
    assert [task.choice["method"] for task in chosen[:4]] == ["information"] * 4


def test_where_the_limit_leaves_too_few_the_rest_is_at_random() -> None:
    prompt = Prompt("Which?")
    star, *others = (Response(prompt.id, f"text {number}", "a") for number in range(13))
    tasks = [Task.of(star, other, wanted=1) for other in others]
    scores = {each.id: [float(number), -float(number)] for number, each in enumerate((star, *others))}
    chosen = choose_tasks(tasks, scores, "information", 12, model="two")
    assert [task.choice["method"] for task in chosen] == ["information"] * 5 + ["random"] * 7
    assert {task.choice.get("score") for task in chosen[5:]} == {None}


def test_information_from_features_asks_what_the_answers_so_far_leave_open() -> None:
    prompt = Prompt("Which?")
    here, there, up, down = (Response(prompt.id, text, "a") for text in ("here", "there", "up", "down"))
    features = {here.id: [1.0, 0.0], there.id: [-1.0, 0.0], up.id: [0.0, 0.9], down.id: [0.0, -0.9]}
    across, upright = Task.of(here, there, wanted=1), Task.of(up, down, wanted=1)
    [first] = choose_tasks([across, upright], None, "information", 1, features=features)
    assert first.id == across.id  # longer
    answered = [(here.id, there.id, 1.0), (here.id, there.id, 0.0)] * 3
    [first] = choose_tasks([across, upright], None, "information", 1, features=features, answered=answered)
    assert first.id == upright.id
    with pytest.raises(UserError, match="has no features"):
        choose_tasks([across], None, "information", 1, features={here.id: [1.0, 0.0]})
