import random
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, event, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DatabaseError
from sqlalchemy.schema import CreateIndex, CreateTable

from hf_align.errors import UserError
from hf_align.feedback import Annotator, PreferenceStore, Progress, Prompt, Response, Task
from hf_align.feedback.store.connection import reading, writing
from hf_align.feedback.store.schema import answers, leases, metadata, tasks

from .stores import Clock, fill, give


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
    store.answer(give(store, "anna").id, None, id="a")
    assert store.lease("anna") is None and store.lease("ben") is not None
    assert list(store.answers()) == []


@pytest.mark.parametrize("change", [delete(answers), update(answers).values(preference=0.0)])
def test_the_database_itself_refuses_to_change_answers(store, change):
    fill(store)
    store.answer(give(store, "anna").id, 1.0, id="a")
    with pytest.raises(DatabaseError, match="only added"), writing(store.engine) as connection:
        connection.execute(change)
    assert [a.preference for a in store.answers()] == [1.0]


def test_sides_are_balanced(store):
    fill(store, 144)
    left = 0
    for number in range(144):
        lease = store.lease("anna")
        left += lease.left == "first"
        store.answer(lease.id, 1.0, id=str(number))
    assert 45 <= left <= 99  # 4.5 standard deviations: sides hang on the store's secret


def test_a_store_that_is_opened_again_has_everything(tmp_path):
    url = f"sqlite:///{tmp_path}/prefs.db"
    store = PreferenceStore(url, clock=Clock())
    fill(store, 3)
    store.answer(give(store, "anna").id, 1.0, id="a")
    held = store.lease("anna")
    store.close()
    again = PreferenceStore(url, clock=Clock(2000.0))
    assert again.lease("anna") == held
    assert [a.id for a in again.answers()] == ["a"] and len(again.tasks()) == 3
    again.close()


@pytest.mark.parametrize("choice", ["left", "right", "tie"])
def test_a_choice_of_a_side_means_the_response_shown_there(store, choice):
    tasks = fill(store, 8)
    for number, task in enumerate(tasks):
        showing = store.showing(store.lease("anna"))
        lease = showing.lease
        sides = {"left": showing.left.id, "right": showing.right.id}
        assert set(sides.values()) == {task.first_id, task.second_id}
        assert showing.prompt.id == task.prompt_id
        meant = {task.first_id: 1.0, task.second_id: 0.0}[sides[choice]] if choice in sides else 0.5
        assert lease.preference(choice) == meant
        store.answer(lease.id, lease.preference(choice), id=str(number))


def test_progress_counts_what_stands_and_what_the_annotator_may_still_get(store):
    fill(store, 5, wanted=1)
    assert store.progress("anna") == Progress(0, 0, 5)
    store.answer(give(store, "anna").id, 1.0, id="a")
    store.answer(give(store, "anna").id, None, id="b")
    store.answer(give(store, "ben").id, 1.0, id="c")  # the one that anna skipped
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


def given_by_id(store: PreferenceStore) -> dict[str, int]:
    with reading(store.engine) as connection:
        return {row.id: row.given for row in connection.execute(select(tasks.c.id, tasks.c.given))}


def test_a_decision_is_none_of_the_votes_wanted_and_what_is_decided_is_given_to_nobody(store):
    [task] = fill(store, wanted=3)
    store.add(annotators=[Annotator("dora", "adjudicator")])
    store.answer(give(store, "anna").id, 1.0, id="a")
    store.mark_open([task.id])
    store.answer(give(store, "dora").id, 0.0, id="d")
    assert given_by_id(store) == {task.id: 1}
    assert store.lease("ben") is None and store.progress("ben").left == 0
    assert store.statistics()["open"] == 0 and not store.statistics()["by_task"][0]["open"]
    store.undo("dora", id="u")
    assert given_by_id(store) == {task.id: 1} and store.statistics()["open"] == 1
    assert store.progress("ben").left == 1 and store.lease("ben") is not None


def test_answers_of_who_becomes_an_adjudicator_are_votes_no_longer_and_are_again_when_they_are_none(store):
    [task] = fill(store, wanted=2)
    for name in ("anna", "ben"):
        store.answer(give(store, name).id, 1.0, id=name)
    store.update_annotator("ben", kind="adjudicator")
    assert given_by_id(store) == {task.id: 1} and store.lease("cleo") is None
    store.update_annotator("ben", kind="adjudicator", right=1)
    assert given_by_id(store) == {task.id: 1}
    store.update_annotator("ben", kind="person")
    assert given_by_id(store) == {task.id: 2}


def progress_by_looking_at_each(store: PreferenceStore, clock: Clock, name: str) -> tuple[int, int, int]:
    """Progress from the records alone: answered, skipped, left."""
    standing: dict[tuple[str, str], Any] = {}
    for one in store.events():
        standing[one.task_id, one.annotator] = None if one.kind == "undo" else one
    kept = [one for one in standing.values() if one is not None]
    with reading(store.engine) as connection:
        rows = connection.execute(select(leases)).mappings().all()
    domains = store.annotators()[name].domains
    left = 0
    for task in store.tasks().values():
        given = sum(one.task_id == task.id and one.kind == "answer" for one in kept)
        out = [row for row in rows if row["task_id"] == task.id and not row["closed"] and row["expires_at"] > clock.now]
        fits = task.gold is None and (task.domain is None or not domains or task.domain in domains)
        seen = any(one.task_id == task.id and one.annotator == name for one in kept)
        left += fits and not seen and given + sum(row["annotator"] != name for row in out) < task.wanted
    mine = [one.kind for one in kept if one.annotator == name]
    return mine.count("answer"), mine.count("skip"), left


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_progress_is_what_the_records_say_and_a_task_is_given_while_any_is_left(store, seed):
    chance = random.Random(seed)
    store.clock = clock = Clock()
    prompt = Prompt("P")
    texts = [Response(prompt.id, str(number), "m") for number in range(9)]
    made = [
        Task.of(texts[0], other, wanted=1 + number % 3, domain=[None, "law", "code"][number // 3])
        for number, other in enumerate(texts[1:])
    ]
    gold = Task.of(texts[1], texts[2], gold_best=texts[1].id)
    people = [Annotator("anna", domains=("law",)), Annotator("ben"), Annotator("cleo", domains=("law", "code"))]
    store.add(prompts=[prompt], responses=texts, tasks=[*made, gold], annotators=people)
    compared = 0
    for step in range(80):
        name = chance.choice(people).name
        progress = store.progress(name)
        assert (progress.answered, progress.skipped, progress.left) == progress_by_looking_at_each(store, clock, name)
        compared += 0 < progress.left < len(made)
        clock.now -= 1  # the lease is given at the time at which the tasks were counted
        lease = store.lease(name, seconds=chance.choice((3, 1000)), gold_share=0)
        if lease is None or lease.leased_at == clock.now:  # not one that they held
            assert (lease is not None) == (progress.left > 0)
        if lease is None or chance.random() < 0.3:
            store.undo(name, id=f"undo-{step}", seconds=20)
        elif chance.random() < 0.7:
            store.answer(lease.id, chance.choice((1.0, 0.0, None)), id=str(step))
    assert compared > 20


def test_a_late_answer_closes_the_newer_lease_of_its_task(store):
    fill(store, 2, wanted=1)
    late = store.lease("anna", seconds=5)
    store.clock.now += 10
    newer = store.lease("anna")
    assert newer.task == late.task
    store.answer(late.id, 1.0, id="a")
    assert give(store, "anna").task != late.task  # in version 1 anna was shown the answered task for ever


def test_a_second_answer_to_a_showing_changes_nothing_even_after_an_undo(store):
    fill(store)
    lease = store.lease("anna")
    first = store.answer(lease.id, 1.0, id="a")
    again = store.undo("anna", id="u")
    assert store.answer(lease.id, 0.0, id="from a stale page") == first
    assert store.answer(lease.id, 0.0, id="a") == first
    assert list(store.answers()) == []
    assert store.lease("anna") == again


def test_an_id_of_somebody_elses_answer_is_refused_and_not_swallowed(store):
    [task] = fill(store)
    store.answer(give(store, "anna").id, 1.0, id="a")
    lease = store.lease("ben")
    with pytest.raises(UserError, match="id 'a' was already used for another answer; make a new one"):
        store.answer(lease.id, 0.0, id="a")
    with pytest.raises(UserError, match="already used"):
        store.record(task.id, "judge", 0.0, id="a")
    with pytest.raises(UserError, match="already used"):
        store.undo("anna", id="a")
    assert [a.annotator for a in store.answers()] == ["anna"]


def test_a_recorded_answer_is_taken_once_per_id_and_per_task(store):
    [task] = fill(store)
    first = store.record(task.id, "judge", np.float32(0.25), id="a", left="second", shown_at=5, details={"beta": 1})
    assert store.record(task.id, "judge", 1.0, id="a") == store.record(task.id, "judge", 1.0, id="b") == first
    assert (first.preference, first.left, first.seconds, first.lease_id) == (
        0.25,
        "second",
        first.answered_at - 5,
        None,
    )
    assert store.annotators()["judge"].kind == "model"


def test_what_is_known_of_an_annotator_changes_by_name(store):
    store.add(annotators=[Annotator("anna", group="old", right=1)])
    store.add(annotators=[Annotator("anna", group="not taken")])
    changed = store.update_annotator("anna", group="new", domains=["law"], wrong=np.int64(2))
    assert changed == store.annotators()["anna"] == Annotator("anna", "person", "new", ("law",), 1.0, 2.0)


def test_more_answers_are_asked_for_and_never_fewer(store):
    [task] = fill(store, wanted=1)
    store.answer(give(store, "anna").id, 1.0, id="a")
    assert store.lease("ben") is None
    store.want(task.id, 2)
    store.want(task.id, 1)
    assert store.tasks()[task.id].wanted == 2 and store.lease("ben") is not None


def test_a_released_task_goes_to_the_next_who_asks(store):
    fill(store, wanted=1)
    lease = store.lease("anna")
    assert store.lease("ben") is None
    store.release(lease.id)
    assert store.lease("ben") is not None
    assert store.find_lease(lease.id) == lease and store.find_lease("none") is None


PROMPT = Prompt("P")
ONE, OTHER = Response(PROMPT.id, "one", "m"), Response(PROMPT.id, "other", "m")
A, B = sorted((ONE.id, OTHER.id))
ROBOT: Any = "robot"
LAW: Any = "law"


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"responses": [Response("gone", "text", "m")]}, "a response of 'm' names the prompt 'gone', which the store"),
        ({"tasks": [Task(PROMPT.id, "a", "b")]}, "a task names the response 'a', which the store lacks; add"),
        ({"tasks": [Task("elsewhere", A, B)]}, "is one to another prompt; make it with Task.of"),
        (
            {"tasks": [Task(PROMPT.id, B, A)]},
            "first_id and second_id of a task are the same or out of order",
        ),
        (
            {"tasks": [Task(PROMPT.id, A, B, wanted=True)]},
            "wanted is True; give a whole number of answers",
        ),
        ({"tasks": [Task(PROMPT.id, A, B, wanted=-1)]}, "wanted is -1"),
        ({"tasks": [Task(PROMPT.id, A, B, gold=1.5)]}, "gold of a task is 1.5; give a number from 0 to 1"),
        ({"tasks": [Task(PROMPT.id, A, B, priority=float("nan"))]}, "priority of a task is nan; give a finite number"),
        ({"tasks": [Task(PROMPT.id, A, B, domain="")]}, "domain of a task is ''; give text of 1 to 255 characters"),
        ({"prompts": [Prompt("Q", columns={"x": float("nan")})]}, "columns of a prompt can't be stored"),
        ({"prompts": [Prompt("Q", columns={"x": object()})]}, "columns of a prompt can't be stored .*JSON"),
        ({"prompts": [Prompt("half: \ud83d")]}, "content of a prompt can't be stored .*surrogates not allowed"),
        ({"prompts": [Prompt("Q", pool="p" * 256)]}, "pool of a prompt is 'p+'; give text of 1 to 255 characters"),
        ({"annotators": [Annotator(" ")]}, "name of an annotator is ' '; give text"),
        (
            {"annotators": [Annotator("a", kind=ROBOT)]},
            "kind of annotator 'a' is 'robot'; give person, model, adjudicator",
        ),
        (
            {"annotators": [Annotator("a", domains=LAW)]},
            "domains of annotator 'a' is text; give a tuple of names",
        ),
        ({"annotators": [Annotator("a", right=-1)]}, "right of an annotator is -1; give a finite number of at least 0"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_and_nothing_of_its_call_is_kept(store, records, message):
    store.add(prompts=[PROMPT], responses=[ONE, OTHER])
    with pytest.raises(UserError, match=message):
        store.add(**{"prompts": [Prompt("New")], **records})
    assert list(store.prompts()) == [PROMPT.id] and len(store.responses()) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, lease: s.answer("gone", 1.0, id="a"), "the store has no lease 'gone'"),
        (lambda s, lease: s.answer(lease, 1.1, id="a"), "preference is 1.1; give a number from 0 to 1"),
        (lambda s, lease: s.answer(lease, float("nan"), id="a"), "preference is nan"),
        (lambda s, lease: s.answer(lease, True, id="a"), "preference is True"),
        (lambda s, lease: s.answer(lease, "left", id="a"), "preference is 'left'"),
        (lambda s, lease: s.answer(lease, 1.0, id="a", confidence=-0.1), "confidence is -0.1"),
        (lambda s, lease: s.answer(lease, 1.0, id=""), "id is ''; give text of 1 to 64 characters"),
        (lambda s, lease: s.answer(lease, 1.0, id="x" * 65), "id is 'x+'; give text of 1 to 64 characters"),
        (lambda s, lease: s.answer(lease, 1.0, id="a", reason="\ud800"), "reason has a character that can't be stored"),
        (lambda s, lease: s.answer(lease, 1.0, id="a", reason="a\0b"), "reason has a character that can't be stored"),
        (lambda s, lease: s.answer(lease, 1.0, id="a", details={"x": {1}}), "details can't be stored"),
        (lambda s, lease: s.record("gone", "m", 1.0, id="a"), "the store has no task 'gone'"),
        (lambda s, lease: s.record("gone", "m", 1.0, id="a", left="left"), "left is 'left'; give 'first', 'second'"),
        (lambda s, lease: s.record("gone", "m", 1.0, id="a", shown_at=float("inf")), "shown_at is inf"),
        (lambda s, lease: s.want("gone", 2), "the store has no task 'gone'"),
        (lambda s, lease: s.want("gone", 2.5), "wanted is 2.5"),
        (lambda s, lease: s.release("gone"), "the store has no lease 'gone'"),
        (lambda s, lease: s.lease("ben", seconds=0), "seconds is 0; give a finite number above 0"),
        (lambda s, lease: s.lease("ben", gold_share=1.5), "gold_share is 1.5; give a number from 0 to 1"),
        (lambda s, lease: s.lease(""), "name of an annotator is ''"),
        (lambda s, lease: s.undo("anna", id="u", seconds=float("nan")), "seconds is nan"),
        (lambda s, lease: s.update_annotator("gone", right=1), "the store has no annotator 'gone'; add them first"),
        (
            lambda s, lease: s.update_annotator("anna", name="b"),
            "can't change 'name'; it changes kind, group, domains, right",
        ),
    ],
)
def test_a_bad_value_is_named_and_nothing_is_stored(store, call, message):
    fill(store)
    lease = store.lease("anna")
    with pytest.raises(UserError, match=message):
        call(store, lease.id)
    assert list(store.events()) == [] and list(store.annotators()) == ["anna"]


def count_again(store: PreferenceStore) -> dict[str, int]:
    """Standing answers by task, from the events alone."""
    last: dict[tuple[str, str], str] = {}
    for happened in store.events():
        last[happened.task_id, happened.annotator] = happened.kind
    given = dict.fromkeys(store.tasks(), 0)
    for (task, _), kind in last.items():
        given[task] += kind == "answer"
    return given


def test_whatever_happens_counts_agree_with_events_and_nobody_gets_a_task_twice(store):
    names, draw = ["anna", "ben", "cleo", "dora"], random.Random(0)
    fill(store, 16, wanted=3)
    seen: list[str] = []
    for step in range(200):
        name, number = draw.choice(names), draw.random()
        if number < 0.45:
            lease = store.lease(name, seconds=draw.choice([3, 1000]))
            if lease is not None:
                seen.append(lease.id)
                others = {a.annotator for a in store.answers() if a.task_id == lease.task.id}
                assert name not in others
        elif number < 0.93 and seen:
            id = draw.choice([f"id {step}", f"id {draw.randrange(step)} again"])
            lease = store.find_lease(draw.choice(seen[-6:]))
            try:
                store.answer(lease.id, draw.choice([1.0, 0.5, 0.0, None]), id=id)
            except UserError as error:
                assert "already used" in str(error)  # noqa: PT017
        else:
            store.undo(name, id=f"undo {step}")
    counted = given_by_id(store)
    assert counted == count_again(store)
    standing = list(store.answers())
    assert len({(a.task_id, a.annotator) for a in standing}) == len(standing) == sum(counted.values()) > 10
    kinds = [happened.kind for happened in store.events()]
    assert min(kinds.count(kind) for kind in ("answer", "skip", "undo")) > 3


def test_events_are_read_as_they_were_when_asked_for(store):
    fill(store, 5)
    for number in range(4):
        store.answer(give(store, "anna").id, 1.0, id=str(number))
    before = store.answers()
    store.undo("anna", id="u")
    store.record(next(iter(store.tasks())), "judge", 1.0, id="j")
    assert [a.id for a in before] == ["0", "1", "2", "3"]
    assert [a.id for a in store.answers()] == ["0", "1", "2", "j"]
    assert [e.id for e in store.events()] == ["0", "1", "2", "3", "u", "j"]


def test_every_statement_compiles_for_postgresql():
    store, statements = PreferenceStore("sqlite://"), []
    event.listen(store.engine, "before_execute", lambda _, statement, *__: statements.append(statement))
    fill(store, 2)
    store.answer(give(store, "anna", gold_share=1.0).id, 1.0, id="a")
    store.undo("anna", id="b")
    store.progress("anna")
    store.update_annotator("anna", right=1)
    store.update_annotator("anna", kind="adjudicator")
    store.mark_open(store.tasks())
    assert store.progress("anna").left == 2 and store.lease("anna") is not None
    assert list(store.answers()) == [] and len(statements) > 20
    dialect = postgresql.dialect()
    written = [str(s.compile(dialect=dialect)) for s in statements if hasattr(s, "compile")]
    written += [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables]
    written += [str(CreateIndex(i).compile(dialect=dialect)) for t in metadata.sorted_tables for i in t.indexes]
    assert any("WHERE gold IS NULL AND given < wanted" in statement for statement in written)


def test_giving_out_reads_the_queue_by_its_index_and_does_not_sort():
    store = PreferenceStore("sqlite://", clock=Clock())  # whatever the other tests' is: plans are SQLite's
    asked: list[tuple[str, Any]] = []
    seen = set[str]()
    event.listen(store.engine, "before_cursor_execute", lambda _, __, sql, given, *___: asked.append((sql, given)))
    fill(store)
    store.answer(give(store, "anna", gold_share=1.0).id, 1.0, id="a")
    store.undo("anna", id="b")
    store.progress("anna")
    with reading(store.engine) as connection:
        for sql, given in [one for one in asked if one[0].startswith(("SELECT", "UPDATE"))]:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given)]
            scans = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]
            assert not scans and "TEMP B-TREE" not in " ".join(plan), (sql, plan)
            if "NOT IN (SELECT undo_event" in sql:  # somebody's answers: their rows lie far apart
                alone = "USING COVERING INDEX answers_of (annotator=? AND undo=?"
                assert all(alone in step for step in plan if step.startswith("SEARCH answers ")), plan
                assert any(step.startswith(f"SEARCH undo_event {alone}") for step in plan), plan
                seen.add(sql)
    assert len(seen) >= 3, "gold questions, the queue and the progress"
