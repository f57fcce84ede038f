import gc
import json

import pytest

from hf_align.feedback import Annotator, PreferenceStore, Prompt, Response, Task, krippendorff_alpha

from .stores import give


@pytest.fixture
def figures(store: PreferenceStore) -> dict:
    """Statistics of three tasks and a gold question, whose numbers the tests work out by hand."""
    prompts = [Prompt("A", pool="hard", domain="law"), Prompt("B", domain="law"), Prompt("C"), Prompt("D")]
    responses = [[Response(prompt.id, text, "model") for text in "xy"] for prompt in prompts]
    a, b, c = (Task.of(*pair, wanted=2) for pair in responses[:3])
    gold = Task.of(*responses[3], gold_best=min(response.id for response in responses[3]))
    annotators = [Annotator(name) for name in ("anna", "ben")] + [Annotator("judge", "model"), Annotator("idle")]
    store.add(
        prompts=prompts, responses=[r for pair in responses for r in pair], tasks=[a, b, c, gold], annotators=annotators
    )
    given = [
        *[(a, "anna", 1.0, "first", 10), (a, "ben", 1.0, "second", 20), (b, "anna", 0.0, "first", 30)],
        *[(b, "ben", 0.5, "second", None), (a, "judge", 0.0, None, None), (c, "anna", None, None, None)],
        *[(gold, "anna", 1.0, "first", 50), (gold, "ben", 0.5, "second", 5)],
    ]
    for number, (task, name, preference, left, seconds) in enumerate(given):
        shown_at = None if seconds is None else store.clock() + 1 - seconds
        store.record(task.id, name, preference, id=str(number), left=left, shown_at=shown_at)
    store.undo("ben", id="undo")  # the gold question; answered again:
    store.answer(give(store, "ben").id, 0.0, id="again")
    return json.loads(json.dumps(store.statistics(), allow_nan=False))


def of(figures: dict, by: str, value: str | None) -> dict:
    [one] = [one for one in figures[f"by_{by}"] if one[by] == value]
    return one


def test_totals_count_what_stands(figures):
    names = ("prompts", "tasks", "gold", "open", "answered", "answers", "skips", "undos", "annotators")
    assert [figures[name] for name in names] == [4, 4, 1, 1, 2, 7, 1, 1, 4]


def test_agreement_is_alpha_over_tasks_that_are_no_gold_questions(figures):
    table = [[1.0, 0.0], [1.0, 0.5], [0.0, None]]
    assert figures["agreement"]["alpha"] == pytest.approx(krippendorff_alpha(table, "interval"))
    assert figures["agreement"]["units"] == 2 and figures["agreement"]["values"] == 5
    assert figures["agreement"]["low"] <= figures["agreement"]["alpha"] <= figures["agreement"]["high"]


def test_pools_and_domains_have_the_same_counts_and_undefined_alpha_has_a_reason(figures):
    hard, law = of(figures, "pool", "hard"), of(figures, "domain", "law")
    assert [hard[name] for name in ("prompts", "tasks", "open", "answered", "answers")] == [1, 1, 0, 1, 3]
    assert [law[name] for name in ("prompts", "tasks", "open", "answered", "answers")] == [2, 2, 0, 2, 5]
    assert law["agreement"]["alpha"] == figures["agreement"]["alpha"]
    rest = of(figures, "domain", None)
    assert [rest[name] for name in ("tasks", "gold", "open", "answers")] == [2, 1, 1, 2]
    assert rest["agreement"]["alpha"] is None and rest["agreement"]["reason"] == "there are no values"


def test_annotators_have_times_gold_questions_agreement_and_sides(figures):
    anna, ben = of(figures, "annotator", "anna"), of(figures, "annotator", "ben")
    judge, idle = of(figures, "annotator", "judge"), of(figures, "annotator", "idle")
    assert [anna[name] for name in ("answers", "skips", "undos")] == [3, 1, 0]
    assert anna["seconds"] == {"median": 30, "mean": 30, "answers": 3}
    assert [(one["gold_right"]["count"], one["gold_right"]["of"]) for one in (anna, ben)] == [(1, 1), (0, 1)]
    assert ben["undos"] == 1 and judge["kind"] == "model"
    # Of ben's and the judge's answers to anna's two tasks: A 1 of 2 the same, B none.
    assert (anna["agreement"]["raw"], anna["agreement"]["values"]) == (0.25, 2)
    # Left was the first response; anna chose it in A and the gold question, not in B.
    assert (anna["left"]["count"], anna["left"]["of"], anna["first_on_left"]["share"]) == (2, 3, 1.0)
    assert judge["seconds"] is None and judge["left"]["share"] is None and judge["first_on_left"]["of"] == 0
    assert idle["agreement"] == {"alpha": None, "raw": None, "values": 0} and idle["answers"] == 0


def test_a_gold_question_is_right_on_the_same_side_of_a_tie_however_sure_the_answer_is(store):
    prompt = Prompt("A")
    one, other = (Response(prompt.id, text, "model") for text in "xy")
    gold = Task.of(one, other, gold_best=min(one.id, other.id))
    store.add(prompts=[prompt], responses=[one, other], tasks=[gold])
    for name, preference in (("sure", 1.0), ("rather", 0.75), ("undecided", 0.5), ("wrong", 0.25)):
        store.record(gold.id, name, preference, id=name)
    right = {one["annotator"]: one["gold_right"]["count"] for one in store.statistics()["by_annotator"]}
    assert right == {"sure": 1, "rather": 1, "undecided": 0, "wrong": 0}


def test_tasks_are_open_until_they_have_the_answers_wanted(figures):
    by_task = figures["by_task"]
    assert [one["open"] for one in by_task] == [False, False, True, False]
    assert [one["answers"] for one in by_task] == [3, 2, 0, 2]
    assert [one["raw_agreement"] for one in by_task[:3]] == [pytest.approx(1 / 3), 0.0, None]
    assert [one["skips"] for one in by_task] == [0, 0, 1, 0]


def test_an_empty_store_has_zeros_and_nones(store):
    figures = store.statistics()
    assert figures["answers"] == figures["tasks"] == 0 and figures["left"]["share"] is None
    assert figures["agreement"]["alpha"] is None
    json.dumps(figures, allow_nan=False)


def test_the_garbage_collector_runs_after_statistics_as_it_did_before(store):
    for before, switch in ((True, gc.enable), (False, gc.disable)):
        switch()
        try:
            store.statistics()
            assert gc.isenabled() == before
        finally:
            gc.enable()
