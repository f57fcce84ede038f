import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import DatabaseError

from hf_align.feedback import PreferenceStore, Prompt, Response, Task
from hf_align.feedback.store.connection import writing
from hf_align.feedback.store.schema import answers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def store(tmp_path):
    store = PreferenceStore(f"sqlite:///{tmp_path}/prefs.db", clock=Clock())
    yield store
    store.close()


def fill(store: PreferenceStore, n: int = 1, **fields) -> list[Task]:
    prompts = [Prompt(f"Prompt {number}") for number in range(n)]
    responses = [[Response(prompt.id, text, "model") for text in ("good", "bad")] for prompt in prompts]
    tasks = [Task.of(*pair, **fields) for pair in responses]
    store.add(prompts=prompts, responses=[r for pair in responses for r in pair], tasks=tasks)
    return tasks


def test_records_added_twice_are_there_once(store):
    tasks = fill(store, 3)
    fill(store, 3)
    assert list(store.tasks().values()) == tasks
    assert len(store.prompts()) == 3 and len(store.responses()) == 6


def test_an_answer_is_taken_once_per_id_and_per_showing(store):
    fill(store)
    lease = store.lease("anna")
    first = store.answer(lease.id, 1.0, id="a", confidence=0.8, reason="clear")
    assert store.answer(lease.id, 0.0, id="a") == first
    assert store.answer(lease.id, 0.0, id="b") == first
    assert list(store.answers()) == [first]
    assert (first.left, first.shown_at, first.confidence) == (lease.left, lease.leased_at, 0.8)


def test_a_task_is_given_to_as_many_people_as_wanted_and_to_nobody_twice(store):
    fill(store, wanted=2)
    leases = [store.lease(name) for name in ("anna", "ben", "cleo")]
    assert [lease is not None for lease in leases] == [True, True, False]
    assert store.lease("anna") == leases[0]
    store.answer(leases[0].id, 1.0, id="a")
    assert store.lease("anna") is None and store.lease("cleo") is None


def test_an_expired_task_goes_to_somebody_else_and_a_late_answer_still_counts(store):
    fill(store, wanted=1)
    late = store.lease("anna", seconds=5)
    assert store.lease("ben") is None
    store.clock.now += 10
    other = store.lease("ben")
    store.answer(other.id, 1.0, id="b")
    store.answer(late.id, 0.0, id="a")
    assert {(a.annotator, a.preference) for a in store.answers()} == {("anna", 0.0), ("ben", 1.0)}


def test_an_undone_answer_is_kept_as_an_event_and_its_task_is_given_again(store):
    [task] = fill(store)
    lease = store.lease("anna")
    store.answer(lease.id, 1.0, id="a")
    again = store.undo("anna", id="u")
    assert again.task == task and list(store.answers()) == []
    assert store.undo("anna", id="u") == again
    store.answer(again.id, 0.0, id="b")
    assert [(e.kind, e.preference) for e in store.events()] == [("answer", 1.0), ("undo", None), ("answer", 0.0)]
    assert [a.preference for a in store.answers()] == [0.0]
    assert store.undo("ben", id="v") is None


def test_a_skipped_task_goes_to_others_and_not_to_the_same_person(store):
    fill(store, wanted=1)
    store.answer(store.lease("anna").id, None, id="a")
    assert store.lease("anna") is None and store.lease("ben") is not None
    assert list(store.answers()) == []


@pytest.mark.parametrize("change", [delete(answers), update(answers).values(preference=0.0)])
def test_the_database_itself_refuses_to_change_answers(store, change):
    fill(store)
    store.answer(store.lease("anna").id, 1.0, id="a")
    with pytest.raises(DatabaseError, match="only added"), writing(store.engine) as connection:
        connection.execute(change)
    assert [a.preference for a in store.answers()] == [1.0]


def test_sides_are_balanced_and_reopening_keeps_everything(store):
    fill(store, 400, wanted=5)
    left = 0
    for number in range(400):
        lease = store.lease(f"person {number % 5}")
        left += lease.left == "first"
        store.answer(lease.id, 1.0, id=str(number))
    assert 160 <= left <= 240
    reopened = PreferenceStore(store.url)
    assert list(reopened.answers()) == list(store.answers())
