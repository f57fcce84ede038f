import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import DatabaseError

from hf_align.feedback import Annotator, PreferenceStore, Progress, Prompt, Response, Task
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


@pytest.mark.parametrize("choice", ["left", "right", "tie"])
def test_a_choice_of_a_side_means_the_response_shown_there(store, choice):
    tasks = fill(store, 8)
    left_first = set()
    for number, task in enumerate(tasks):
        showing = store.showing(store.lease("anna"))
        lease = showing.lease
        sides = {"left": showing.left.id, "right": showing.right.id}
        assert set(sides.values()) == {task.first_id, task.second_id}
        assert showing.prompt.id == task.prompt_id
        left_first.add(sides["left"] == task.first_id)
        meant = {task.first_id: 1.0, task.second_id: 0.0}[sides[choice]] if choice in sides else 0.5
        assert lease.preference(choice) == meant
        store.answer(lease.id, lease.preference(choice), id=str(number))
    assert left_first == {True, False}


def test_progress_counts_what_stands_and_what_the_annotator_may_still_get(store):
    fill(store, 5, wanted=1)
    assert store.progress("anna") == Progress(0, 0, 5)
    store.answer(store.lease("anna").id, 1.0, id="a")
    store.answer(store.lease("anna").id, None, id="b")
    store.answer(store.lease("ben").id, 1.0, id="c")  # the one that anna skipped
    store.lease("anna")
    assert store.progress("anna") == Progress(1, 1, 3)
    assert store.progress("ben") == Progress(1, 0, 2)  # one is anna's, one is out with her
    store.undo("anna", id="u")
    assert store.progress("anna") == Progress(1, 0, 3)  # the skipped one has its one answer, and is held again


def test_progress_leaves_out_other_domains_and_gold_questions(store):
    prompt = Prompt("P")
    one, two, three = (Response(prompt.id, text, "m") for text in "abc")
    tasks = [
        Task.of(one, two, domain="law"),
        Task.of(one, three, domain="code"),
        Task.of(two, three, gold_best=two.id),
    ]
    store.add(
        prompts=[prompt], responses=[one, two, three], tasks=tasks, annotators=[Annotator("anna", domains=("law",))]
    )
    assert store.progress("anna").left == 1 and store.progress("ben").left == 2
