import pytest

from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.validate import (
    TrackRecord,
    answer_quality,
    majority_share,
    review_task,
    track_records,
)
from hf_align.feedback.records import Annotator, Answer, Response, Task

CONFIG = CollectionConfig()
TASK = Task.of(Response("p", "one", "m"), Response("p", "two", "m"))


def answer(preference=1.0, who="anna", seconds=None, task=TASK, **fields):
    shown = None if seconds is None else 100.0
    values = {"left": None, "confidence": None, "reason": None, **fields}
    id = f"{who} on {task.id}"
    return Answer(id, task.id, who, "answer", preference, shown_at=shown, answered_at=100.0 + (seconds or 0), **values)


def review(answers, records=None):
    known = records or {}
    qualities = {each.id: answer_quality(each, CONFIG, known.get(each.annotator, TrackRecord())) for each in answers}
    return review_task(TASK, answers, CONFIG, qualities)


def given(*preferences, **fields):
    return [answer(preference, f"annotator {number}", **fields) for number, preference in enumerate(preferences)]


@pytest.mark.parametrize(
    ("fields", "quality"),
    [
        ({}, 0.8),
        ({"seconds": 10}, (0.8 + 1) / 2),
        ({"seconds": 300}, (0.8 + 1) / 2),
        ({"seconds": 4}, (0.8 + 0.4) / 2),
        ({"seconds": 600}, (0.8 + 0.5) / 2),
        ({"seconds": 0}, (0.8 + 0) / 2),
        ({"seconds": 30, "confidence": 0.6}, (0.8 + 1 + 1) / 3),
        ({"seconds": 30, "confidence": 0.15}, (0.8 + 1 + 0.25) / 3),
        ({"seconds": 30, "confidence": 0.9, "reason": "  right  "}, (0.8 + 1 + 1 + 5 / 20) / 4),
        ({"seconds": 30, "confidence": 0.9, "reason": "x" * 50}, (0.8 + 1 + 1 + 1) / 4),
        ({"reason": "   "}, 0.8),
    ],
)
def test_quality_is_the_mean_of_the_parts_that_an_answer_has(fields, quality):
    assert answer_quality(answer(**fields), CONFIG, TrackRecord()) == pytest.approx(quality)


def test_limits_of_nothing_hold_for_every_answer():
    config = CollectionConfig(min_seconds=0, min_reason_length=0, min_confidence=0)
    quick = answer(seconds=0, confidence=0.0, reason="x")
    assert answer_quality(quick, config, TrackRecord()) == pytest.approx((0.8 + 3) / 4)


@pytest.mark.parametrize(("right", "wrong", "reliability"), [(0, 0, 0.8), (10, 0, 14 / 15), (4, 1, 0.8), (0, 5, 0.4)])
def test_a_track_record_begins_as_four_of_five(right, wrong, reliability):
    assert TrackRecord(right, wrong).reliability == pytest.approx(reliability)


@pytest.mark.parametrize(
    ("preferences", "state", "wanted"),
    [
        ((), "asked", 3),
        ((1.0, 1.0), "asked", 3),
        ((1.0, 1.0, 0.9), "valid", 3),
        ((0.5, 0.5, 0.5), "valid", 3),
        ((1.0, 1.0, 0.0), "asked", 4),  # 2/3 < .7
        ((1.0, 1.0, 0.0, 1.0), "valid", 3),  # 3/4
        ((1.0, 0.5, 0.0, 1.0), "asked", 5),
        ((1.0, 0.5, 0.0, 1.0, 1.0), "asked", 6),  # 3/5
        ((1.0, 0.5, 0.0, 1.0, 1.0, 1.0), "open", 3),  # 4/6
        ((1.0, 1.0, 0.0, 1.0, 1.0, 1.0), "valid", 3),  # 5/6
    ],
)
def test_more_are_asked_until_enough_agree_or_the_limit_is_reached(preferences, state, wanted):
    found = review(given(*preferences))
    assert (found.state, found.wanted, found.given) == (state, wanted, len(preferences))


def test_an_answer_of_low_quality_does_not_count_and_is_replaced():
    hasty = answer(0.0, "clicker", seconds=2)
    found = review([*given(1.0, 1.0, seconds=20), hasty])
    assert (found.state, found.wanted, len(found.counting), found.agreement) == ("asked", 4, 2, 1.0)
    assert found.quality == pytest.approx(0.9)
    again = review([*given(1.0, 1.0, seconds=20), hasty, answer(1.0, "dora", seconds=20)])
    assert again.state == "valid" and hasty not in again.counting


def test_a_record_of_wrong_answers_makes_a_models_answers_not_count():
    records = {"annotator 0": TrackRecord(1, 9)}
    assert len(review(given(1.0, 1.0, 1.0), records).counting) == 2


def test_ties_are_a_preference_of_their_own():
    assert majority_share([1.0, 0.5, 0.5, 0.6]) == 0.5
    assert majority_share([]) is None


def test_gold_questions_and_repeated_unanimous_tasks_make_the_record_on_top_of_the_stored_one():
    gold = Task.of(one := Response("q", "one", "m"), Response("q", "two", "m"), gold_best=one.id)
    tie = Task.of(Response("r", "one", "m"), Response("r", "two", "m"), gold_best="tie")
    right = gold.gold or 0.0
    answers = [
        answer(right, "anna", task=gold),
        answer(1 - right, "ben", task=gold),
        answer(0.5, "anna", task=tie),
        answer(1.0, "ben", task=tie),
        *given(1.0, 1.0, 1.0),  # unanimous: what comes behind is measured
        answer(0.0, "ben"),
        answer(0.8, "anna"),
    ]
    people = {name: Annotator(name) for name in ("anna", *(f"annotator {number}" for number in range(3)))}
    people["ben"] = Annotator("ben", right=2, wrong=1)
    records = track_records({task.id: task for task in (gold, tie, TASK)}, answers, people, CONFIG)
    assert records["anna"] == TrackRecord(3, 0)
    assert records["ben"] == TrackRecord(2, 4)
    assert records["annotator 0"] == TrackRecord()


@pytest.mark.parametrize("first", [(1.0, 1.0, 0.0), (0.5, 0.5, 0.5)])
def test_nothing_is_known_of_tasks_whose_first_answers_differ_or_are_ties(first):
    answers = [*given(*first), answer(1.0, "anna")]
    people = {each.annotator: Annotator(each.annotator) for each in answers}
    assert set(track_records({TASK.id: TASK}, answers, people, CONFIG).values()) == {TrackRecord()}
