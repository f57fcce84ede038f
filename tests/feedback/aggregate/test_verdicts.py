"""Verdicts on tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.feedback import Annotator, Answer, Response, Task, Verdict, aggregate_answers, judge_tasks

TASK = Task.of(Response("p", "one", "a"), Response("p", "two", "b"))


def answer(annotator: str, preference: float | None, task: Task = TASK) -> Answer:
    return Answer(f"{annotator}/{task.id}", task.id, annotator, "answer", preference, "first", None, None, None, 0.0)


def judged(*preferences: float, **options) -> Verdict:
    given = [answer(f"annotator {n}", p) for n, p in enumerate(preferences)]
    return judge_tasks([TASK], given, method="majority", **options)[TASK.id]


def test_majority_is_the_share_of_votes_with_ties_as_halves():
    verdict = judged(1.0, 1.0, 0.5, 0.0)
    assert verdict.votes == (2, 1, 1)
    assert verdict.preference == verdict.vote_share == 0.625
    assert verdict.strength == 0.25
    assert verdict.label == 1.0
    assert verdict.agreement == pytest.approx(1 / 6)  # one of six pairs
    assert verdict.source == "majority"


@pytest.mark.parametrize("preferences", [(0.5, 0.5, 1.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5), (1.0, 1.0, 0.5, 0.5)])
def test_a_tie_and_an_undecided_vote_stay_a_tie(preferences):
    assert judged(*preferences).label == 0.5


def test_a_task_is_open_below_the_limit_of_agreement():
    assert judged(1.0, 1.0, 0.0).open
    assert not judged(1.0, 1.0, 0.0, min_agreement=2 / 3).open
    assert not judged(1.0, 1.0, 0.0, 1.0).open  # a further answer closes it
    assert not judged(1.0, 1.0, 1.0).open
    single = judged(1.0)
    assert single.agreement is None and not single.open


def test_an_adjudicator_closes_a_task_and_the_votes_stay():
    given = [answer("anna", 1.0), answer("ben", 1.0), answer("cleo", 0.0), answer("judge", 0.0)]
    verdict = judge_tasks([TASK], given, adjudicators=["judge"], method="majority")[TASK.id]
    assert (verdict.label, verdict.preference, verdict.open) == (0.0, 0.0, False)
    assert verdict.votes == (2, 0, 1) and verdict.source == "adjudicator"


def test_adjudicators_who_disagree_leave_a_task_open():
    given = [answer("anna", 1.0), answer("one", 0.0), answer("two", 1.0)]
    verdict = judge_tasks([TASK], given, adjudicators=["one", "two"], method="majority")[TASK.id]
    assert verdict.open and verdict.preference == 0.5


def test_groups_have_their_own_preference_and_agreement():
    people = [Annotator("a1", group="a"), Annotator("a2", group="a"), Annotator("b1", group="b"), Annotator("none")]
    given = [answer("a1", 1.0), answer("a2", 0.5), answer("b1", 0.0), answer("none", 1.0)]
    verdict = judge_tasks({TASK.id: TASK}, given, people, method="majority")[TASK.id]
    assert verdict.by_group == {"a": 0.75, "b": 0.0}
    assert verdict.agreement_by_group == {"a": 0.0, "b": None}


def test_a_gold_question_has_its_known_answer():
    gold = Task.of(Response("p", "one", "a"), Response("p", "two", "b"), gold_best="tie")
    verdict = judge_tasks([gold], [answer("anna", 1.0, gold), answer("ben", 0.0, gold)], method="majority")[gold.id]
    assert (verdict.label, verdict.source, verdict.open) == (0.5, "gold", False)


def test_quality_is_the_mean_of_the_votes_that_have_one():
    given = [answer("anna", 1.0), answer("ben", 1.0), answer("cleo", 0.0)]
    qualities = {given[0].id: 0.9, given[2].id: 0.5}
    assert judge_tasks([TASK], given, qualities=qualities, method="majority")[TASK.id].quality == pytest.approx(0.7)


def test_tasks_without_answers_have_no_verdict_and_strangers_are_refused():
    assert judge_tasks([TASK], []) == {}
    with pytest.raises(UserError, match="isn't among the tasks"):
        judge_tasks([], [answer("anna", 1.0)])
    with pytest.raises(UserError, match="no preference"):
        judge_tasks([TASK], [answer("anna", None)])
    with pytest.raises(UserError, match="method is 'vote'; use one of"):
        judge_tasks([TASK], [], method="vote")  # pyright: ignore[reportArgumentType]


def test_dawid_skene_is_the_default_and_trusts_who_is_right_on_gold_questions():
    tasks = [Task.of(Response(str(n), "one", "a"), Response(str(n), "two", "b"), gold=1.0) for n in range(8)]
    given = [answer(name, 1.0, task) for task in tasks for name in ("anna", "ben")]
    given += [answer(name, 0.0, task) for task in tasks for name in ("x", "y", "z")]
    given += [answer(name, 1.0) for name in ("anna", "ben")] + [answer(name, 0.0) for name in ("x", "y", "z")]
    verdict = judge_tasks([*tasks, TASK], given)[TASK.id]
    assert verdict.source == "dawid_skene" and verdict.label == 1.0 and verdict.vote_share == 0.4
    assert judge_tasks([*tasks, TASK], given, method="majority")[TASK.id].label == 0.0
    assert judge_tasks([*tasks, TASK], given, method="weighted")[TASK.id].label == 1.0


@pytest.mark.parametrize("method", ["dawid_skene", "skill_weighted"])
def test_exchanging_the_two_responses_of_every_task_exchanges_the_verdicts(method):
    rng = np.random.default_rng(0)
    tasks = [Task.of(Response(str(n), "one", "a"), Response(str(n), "two", "b")) for n in range(40)]
    given = [answer(f"a{a}", rng.choice([0.0, 0.5, 1.0], p=[0.3, 0.2, 0.5]), task) for task in tasks for a in range(4)]
    turned = [replace(each, preference=1 - (each.preference or 0.0)) for each in given]
    one, other = judge_tasks(tasks, given, method=method), judge_tasks(tasks, turned, method=method)
    for id, verdict in one.items():
        assert verdict.preference == pytest.approx(1 - other[id].preference, abs=1e-9)
        assert verdict.label == 1 - other[id].label


def test_votes_weighted_by_skill_leave_out_who_answers_without_looking_and_turn_round_who_is_wrong():
    tasks = [Task.of(Response(str(n), "one", "a"), Response(str(n), "two", "b"), gold=float(n % 2)) for n in range(40)]
    given = [answer("anna", task.gold, task) for task in tasks]
    given += [answer("liar", 1 - (task.gold or 0.0), task) for task in tasks]
    given += [answer(name, click, task) for task in tasks for name, click in (("clicker", 1.0), ("tie", 0.5))]
    given += [answer("anna", 1.0), answer("liar", 0.0), answer("clicker", 0.0), answer("tie", 0.5)]
    verdict = judge_tasks([*tasks, TASK], given, method="skill_weighted")[TASK.id]
    # 20.5 answers to each side (41 tasks), and one of the prior: right and on the other side are 20.5 + 2/3 and 1/6
    # of anna's, 2/3 and 20.5 + 1/6 of the liar's, 10 + 2/3 and 10.5 + 1/6 of the clicker's, 2/3 and 1/6 of the last.
    anna, liar, clicker, tie = 21 / 21.5, 20 / 21.5, 0.0, 0.5 / 21.5
    expected = (anna + liar + tie / 2) / (anna + liar + clicker + tie)
    assert verdict.preference == pytest.approx(expected, abs=2e-5)
    assert (verdict.label, verdict.source, verdict.vote_share) == (1.0, "skill_weighted", 0.375)


def test_track_records_count_as_answers_to_gold_questions():
    people = [
        Annotator("anna", right=30, wrong=2),
        Annotator("x", right=3, wrong=20),
        Annotator("y", right=3, wrong=20),
    ]
    given = [answer("anna", 1.0), answer("x", 0.0), answer("y", 0.0)]
    for method in ("dawid_skene", "skill_weighted", "weighted"):
        assert judge_tasks([TASK], given, people, method=method)[TASK.id].label == 1.0
    assert judge_tasks([TASK], given, people, method="majority")[TASK.id].label == 0.0


def test_votes_are_weighted_by_the_quality_of_an_annotators_answers():
    given = [answer("anna", 1.0), answer("ben", 0.0)]
    qualities = {given[0].id: 0.9, given[1].id: 0.3}
    assert judge_tasks([TASK], given, method="weighted", qualities=qualities)[TASK.id].preference == pytest.approx(0.75)
    with pytest.raises(UserError, match="qualities has none for the answers of 'ben'"):
        judge_tasks([TASK], given, method="weighted", qualities={given[0].id: 0.9})


def test_adjudicated_tasks_measure_annotators_like_gold_questions():
    tasks = [Task.of(Response(str(n), "one", "a"), Response(str(n), "two", "b")) for n in range(6)]
    given = [answer(name, 1.0, task) for task in tasks for name in ("x", "y")]
    given += [answer("anna", 0.0, task) for task in tasks]
    decided = [answer("judge", 0.0, task) for task in tasks[:5]]
    result = aggregate_answers(tasks, given + decided, adjudicators=["judge"])
    assert result is not None and result.skills["anna"] > 0.8 and result.skills["x"] < 0.3
    assert judge_tasks(tasks, given + decided, adjudicators=["judge"])[tasks[5].id].label == 0.0
    assert judge_tasks(tasks, given)[tasks[5].id].label == 1.0


def test_a_task_that_only_an_adjudicator_answered_has_their_verdict():
    verdict = judge_tasks([TASK], [answer("judge", 0.5)], adjudicators=["judge"])[TASK.id]
    assert (verdict.label, verdict.votes, verdict.vote_share, verdict.agreement) == (0.5, (0, 0, 0), None, None)


def test_order_of_answers_does_not_matter():
    rng = np.random.default_rng(1)
    tasks = [Task.of(Response(str(n), "one", "a"), Response(str(n), "two", "b")) for n in range(20)]
    given = [answer(f"a{a}", rng.choice([0.0, 1.0]), task) for task in tasks for a in range(3)]
    one, other = judge_tasks(tasks, given), judge_tasks(tasks, given[::-1])
    assert [v.preference for v in one.values()] == pytest.approx([v.preference for v in other.values()], abs=1e-9)
