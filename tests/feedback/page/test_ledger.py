"""The ledger that browser sessions are checked with finds each kind of fault that is planted in a store."""

from __future__ import annotations

import pytest

from benchmarks.feedback.browser.ledger import Entry, Ledger, View, compare, read_store
from benchmarks.feedback.browser.tasks import fill
from hf_align.feedback import PreferenceStore

CLICKS = ("left", "right", "tie", "skip", "left")


@pytest.fixture(scope="module")
def played():
    """A store, its questions, and the ledger of a person who answers, skips and takes the last one back."""
    store = PreferenceStore("sqlite://")
    questions = fill(store, 8)
    numbers = {question.id: number for number, question in enumerate(questions)}
    ledger = Ledger()
    for number, choice in enumerate(CLICKS):
        lease = store.lease("anna")
        assert lease is not None
        view = shown(store, lease, numbers)
        preference = {"tie": 0.5, "skip": None}.get(choice, float((choice == "left") == (lease.left == "first")))
        store.answer(lease.id, preference, id=str(number), confidence=0.5, reason="so")
        assert ledger.choose("anna", view, choice, 0.5, "so")
    store.undo("anna", id="undo")
    assert ledger.undo("anna") == ledger.entries["anna"][len(CLICKS) - 1].task
    return store, numbers, ledger


def shown(store, lease, numbers) -> View:
    responses = store.responses()
    texts = [responses[lease.task.first_id].content, responses[lease.task.second_id].content]
    left, right = texts if lease.left == "first" else texts[::-1]
    return View(numbers[lease.task.id], left, right)


def test_a_store_that_took_every_click_does_not_differ(played):
    store, numbers, ledger = played
    assert not compare(ledger.entries, read_store(store, numbers))
    assert ledger.clicks == {"left": 2, "right": 1, "tie": 1, "skip": 1, "undo": 1}


def test_a_click_on_a_task_that_was_answered_is_void_until_the_answer_is_taken_back():
    ledger, view = Ledger(), View(3, "one", "other")
    assert ledger.choose("anna", view, "left") and not ledger.choose("anna", view, "right")
    assert ledger.choose("ben", view, "right")
    assert ledger.undo("anna") == 3 and ledger.undo("anna") is None
    assert ledger.choose("anna", view, "right")
    assert [entry.better for entry in ledger.entries["anna"]] == ["one", None, "other"]


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("lost", lambda entries: entries[:2] + entries[3:]),
        ("doubled", lambda entries: [*entries, entries[0]]),
        ("wrong_side", lambda entries: [entries[0]._replace(better="another"), *entries[1:]]),
        ("wrong_side", lambda entries: [entries[0]._replace(left="another"), *entries[1:]]),
        ("wrong_notes", lambda entries: [entries[0]._replace(reason=None), *entries[1:]]),
        ("wrong_order", lambda entries: [entries[1], entries[0], *entries[2:]]),
    ],
)
def test_each_kind_of_fault_is_found_and_no_other(played, fault, change):
    store, numbers, ledger = played
    stored = read_store(store, numbers)
    stored["anna"] = change(stored["anna"])
    found = compare(ledger.entries, stored)
    counts = {name: value for name, value in vars(found).items() if name != "examples" and value}
    assert counts == {fault: 1} and found.examples


def test_an_answer_of_somebody_who_clicked_nothing_is_doubled():
    assert compare({}, {"ben": [Entry("answer", 1, "one", "one")]}).doubled == 1
