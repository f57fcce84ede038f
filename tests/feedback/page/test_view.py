import re
from collections.abc import Sequence

import pytest

from hf_align.errors import UserError
from hf_align.feedback import Annotator, PreferenceStore, Prompt, Response, Task
from hf_align.feedback.page.view import LONGEST_REASON, Desk, View, draw_notice


def make_store(number: int = 3) -> PreferenceStore:
    """Store with tasks whose responses are "good i" and "bad i"."""
    store = PreferenceStore("sqlite://")
    prompts = [Prompt(f"question {i}") for i in range(number)]
    pairs = [(Response(p.id, f"good {i}", "a"), Response(p.id, f"bad {i}", "b")) for i, p in enumerate(prompts)]
    tasks = [Task.of(*pair) for pair in pairs]
    store.add(prompts=prompts, responses=[one for pair in pairs for one in pair], tasks=tasks)
    return store


def side_of(view: View, text: str) -> str:
    """Side on which a view shows the response that begins with a text."""
    left, right = view.task.index('id="left"'), view.task.index('id="right"')
    # What stands before it has the showing's id, and "bad" is three hexadecimal digits.
    return "right" if view.task.index(text, left) > right else "left"


def wins(store: PreferenceStore, annotator: str) -> list[str]:
    """Texts that an annotator preferred, "tie" where neither."""
    tasks, responses = store.tasks(), store.responses()
    sides = {1.0: "first_id", 0.0: "second_id"}
    return [
        str(responses[getattr(tasks[answer.task_id], sides[answer.preference])].content)
        if answer.preference in sides
        else "tie"
        for answer in store.answers()
        if answer.annotator == annotator
    ]


def test_the_chosen_side_is_what_is_stored() -> None:
    store = make_store(20)
    desk = Desk(store)
    view = desk.show("anna")
    sides = []
    while view.showing:
        sides.append(side_of(view, "good"))
        view = desk.answer("anna", view.showing, sides[-1], confidence=0.8, reason=" because ")  # type: ignore[arg-type]
    assert sorted(wins(store, "anna")) == sorted(f"good {i}" for i in range(20))
    assert set(sides) == {"left", "right"}
    assert {(answer.confidence, answer.reason) for answer in store.answers()} == {(0.8, "because")}
    assert "20 answered, 0 left" in view.progress
    assert "Nothing is left" in view.task


def test_the_page_gives_an_adjudicator_the_tasks_that_are_open() -> None:
    store = make_store()
    store.add(annotators=[Annotator("dora", "adjudicator")])
    desk = Desk(store, gold_share=1)
    assert not desk.show("dora").showing
    number, id = 1, list(store.tasks())[1]
    store.mark_open([id])
    view = desk.show("dora")
    assert f"good {number}" in view.task and "0 answered, 1 left" in view.progress
    view = desk.answer("dora", view.showing, side_of(view, "bad"))  # type: ignore[arg-type]
    assert not view.showing and "1 answered, 0 left" in view.progress and wins(store, "dora") == ["bad 1"]
    assert f"good {number}" in desk.undo("dora", "").task
    with pytest.raises(UserError, match="the store has no task 'gone'"):
        store.mark_open(["gone"])


def test_a_reload_shows_the_same_task_on_the_same_sides() -> None:
    desk = Desk(make_store())
    view = desk.show("anna")
    assert all(desk.show("anna") == view for _ in range(5))


@pytest.mark.parametrize("second", ["left", "right", "tie", "skip"])
def test_a_second_answer_to_a_showing_adds_nothing(second: str) -> None:
    store = make_store()
    desk = Desk(store)
    old = desk.show("anna")
    new = desk.answer("anna", old.showing, "left")
    again = desk.answer("anna", old.showing, second)  # type: ignore[arg-type]
    assert len(list(store.events())) == 1
    assert (again.showing, again.task) == (new.showing, new.task)
    assert ("already answered (left is better)" in again.message) == (second != "left")


def test_an_answer_counts_for_the_showing_it_was_given_to_however_old() -> None:
    store = make_store()
    desk = Desk(store)
    old = desk.show("anna")
    lease = store.find_lease(old.showing)
    assert lease is not None
    store.release(lease.id)
    newer = desk.show("anna")
    side = side_of(old, "good")
    desk.answer("anna", old.showing, side)  # type: ignore[arg-type]
    (answer,) = store.answers()
    assert (answer.lease_id, wins(store, "anna")[0][:4]) == (old.showing, "good")
    assert newer.showing != old.showing


def test_undo_shows_the_last_task_again_and_once() -> None:
    store = make_store()
    desk = Desk(store)
    first = desk.show("anna")
    second = desk.answer("anna", first.showing, "tie")
    third = desk.answer("anna", second.showing, "skip")
    back = desk.undo("anna", third.showing)
    assert desk.undo("anna", third.showing).showing == back.showing
    prompt = re.search(r"question \d", second.task)
    assert prompt is not None
    assert prompt[0] in back.task
    assert [event.kind for event in store.events()] == ["answer", "skip", "undo"]
    assert wins(store, "anna") == ["tie"]


def test_undo_from_an_old_screen_changes_nothing() -> None:
    store = make_store()
    desk = Desk(store)
    old = desk.show("anna")
    view = desk.answer("anna", old.showing, "left")
    stale = desk.undo("anna", old.showing)
    assert stale.showing == view.showing
    assert "out of date" in stale.message
    assert len(list(store.events())) == 1


def test_undo_works_when_nothing_is_left_and_when_there_is_nothing_to_undo() -> None:
    store = make_store(1)
    desk = Desk(store)
    view = desk.show("anna")
    nothing = desk.undo("anna", view.showing)
    assert "nothing to undo" in nothing.message
    assert not nothing.clear
    end = desk.answer("anna", view.showing, "left")
    assert not end.showing
    back = desk.undo("anna", end.showing)
    assert back.showing
    assert "out of date" in desk.undo("anna", "").message
    again = desk.answer("anna", back.showing, "right")
    assert not again.showing
    assert desk.undo("anna", "").showing not in ("", back.showing)


def test_nobody_answers_for_somebody_else() -> None:
    store = make_store()
    desk = Desk(store)
    theirs, mine = desk.show("anna"), desk.show("bob")
    view = desk.answer("bob", theirs.showing, "left")
    assert not list(store.events())
    assert view.showing == mine.showing
    assert "shown to anna, and you are bob" in view.message


@pytest.mark.parametrize("showing", ["", "0" * 32, "' OR 1=1 --"])
def test_an_unknown_showing_adds_nothing(showing: str) -> None:
    store = make_store()
    desk = Desk(store)
    view = desk.answer("anna", showing, "left")
    assert view.showing == desk.show("anna").showing
    assert "out of date" in view.message
    assert not list(store.events())


def test_two_people_work_side_by_side() -> None:
    store = make_store(6)
    desk = Desk(store)
    views = {name: desk.show(name) for name in ("anna", "bob")}
    while any(view.showing for view in views.values()):
        for name, view in views.items():
            if view.showing:
                side = side_of(view, "good" if name == "anna" else "bad")
                views[name] = desk.answer(name, view.showing, side)  # type: ignore[arg-type]
    assert {text.split()[0] for text in wins(store, "anna")} == {"good"}
    assert {text.split()[0] for text in wins(store, "bob")} == {"bad"}
    assert len(list(store.answers())) == 12


def test_a_name_of_a_model_is_refused() -> None:
    store = make_store()
    store.add(annotators=[Annotator("judge", "model")])
    with pytest.raises(UserError, match="judge is a model"):
        Desk(store).show("judge")


def test_a_reason_has_a_limit() -> None:
    desk = Desk(make_store())
    view = desk.show("anna")
    with pytest.raises(UserError, match=f"at most {LONGEST_REASON}"):
        desk.answer("anna", view.showing, "left", reason="a" * (LONGEST_REASON + 1))


def show(prompt: object, responses: Sequence[object]) -> str:
    """HTML of a task."""
    store = PreferenceStore("sqlite://")
    asked = Prompt(prompt)  # type: ignore[arg-type]
    pair = [Response(asked.id, each, "a") for each in responses]  # type: ignore[arg-type]
    store.add(prompts=[asked], responses=pair, tasks=[Task.of(*pair)])
    return Desk(store).show("anna").task


def test_conversations_are_shown_with_roles_and_all_they_say() -> None:
    task = show(
        [
            {"role": "system", "content": "Be <b>brief</b>."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "What is *this*?"}, {"type": "image", "path": "a.png"}],
            },
        ],
        [
            [{"role": "assistant", "content": "A cat."}],
            [
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]},
                {"role": "<tool>", "content": "cat"},
                {"role": "assistant", "content": "It is a cat.", "reasoning_content": "a tail"},
            ],
        ],
    )
    for text in (">system<", ">user<", "Be &lt;b&gt;brief", "<em>this</em>", "a.png", "look", "&lt;tool&gt;", "a tail"):
        assert text in task
    assert task.count(">assistant<") == 2


def test_a_gold_question_looks_like_any_other() -> None:
    store = PreferenceStore("sqlite://")
    prompt = Prompt("question")
    pairs = [[Response(prompt.id, f"{word} {i}", "a") for word in ("good", "bad")] for i in range(2)]
    gold = Task.of(*pairs[0], gold_best=pairs[0][0].id)
    store.add(prompts=[prompt], responses=[*pairs[0], *pairs[1]], tasks=[gold, Task.of(*pairs[1])])
    shapes = set()
    for name in ("anna", "bob"):
        view = Desk(store, gold_share=1.0 if name == "anna" else 0.0).show(name)
        shapes.add(re.sub(r"[0-9a-f]{32}|(good|bad) \d", "", view.task))
        assert "1 left" in view.progress
    assert len(shapes) == 1


def test_a_notice_shows_its_text_as_it_stands():
    drawn = draw_notice("<b>R&D</b> is a model in this store")
    assert "<b>" not in drawn and "&lt;b&gt;R&amp;D&lt;/b&gt; is a model" in drawn
