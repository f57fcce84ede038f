"""What is exported of a store, in which order, and what is left out."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from hf_align.collators import find_bad_rows
from hf_align.data import to_preferences
from hf_align.errors import UserError
from hf_align.feedback import Annotator, PreferenceStore, Prompt, Task
from hf_align.feedback.export import export_preferences
from tests.feedback.export.filled import BAD, GOOD, Clock, add_task, filled

PEOPLE = ("Anna Q", "Ben R", "Cleo S")


@pytest.fixture(scope="module")
def three() -> PreferenceStore:
    """Three tasks, which no test adds to."""
    return filled(3)


def exported(store: PreferenceStore, **options: Any) -> list[dict[str, Any]]:
    return export_preferences(store, **{"method": "majority", **options}).rows.to_list()


def test_the_better_response_is_chosen_whatever_its_position():
    rows = exported(filled(6))
    assert [row["prompt"] for row in rows] == [f"Question {number}?" for number in range(6) if number % 3 != 2]
    assert {row["chosen_source"] for row in rows} == {"strong"}
    assert all("fine" in row["chosen"] and "No idea" in row["rejected"] for row in rows)
    assert len({row["provenance"]["task"] for row in rows}) == 4


def test_the_margin_is_twice_the_distance_from_a_tie_and_votes_are_counted_for_chosen(three: PreferenceStore):
    unanimous, divided = exported(three)
    assert unanimous["margin"] == unanimous["strength"] == 1.0
    assert divided["margin"] == pytest.approx(1 / 3) and divided["p_chosen"] == pytest.approx(2 / 3)
    assert divided["vote_counts"] == {"chosen": 2, "tie": 0, "rejected": 1}
    assert divided["agreement"] == pytest.approx(1 / 3) and unanimous["agreement"] == 1.0
    assert divided["by_group"] == [
        {"group": "north", "p_chosen": 1.0, "agreement": 1.0},
        {"group": "south", "p_chosen": 0.0, "agreement": None},
    ]
    assert [answer["answer"] for answer in divided["answers"]] == [1.0, 1.0, 0.0]
    assert [answer["group"] for answer in divided["answers"]] == ["north", "north", "south"]


def test_rows_have_no_finding_and_are_pairs_of_a_known_layout():
    rows = export_preferences(filled(6), method="majority").rows
    findings = find_bad_rows(rows)
    assert not findings.bad and not findings.doubtful
    assert to_preferences(rows).to_list() == rows.to_list()


def test_soft_labels_are_probabilities_of_the_order_of_the_row(three: PreferenceStore):
    rows = exported(three, soft_labels=True, ties="keep")
    assert [row["preference"] for row in rows] == pytest.approx([1.0, 2 / 3, 0.5])
    assert all("margin" not in row and "weight" not in row for row in rows)
    assert not find_bad_rows(rows).bad


def test_kept_ties_become_both_orders_of_half_weight(three: PreferenceStore):
    rows = exported(three, ties="keep")
    assert [row["weight"] for row in rows] == [1.0, 1.0, 0.5, 0.5]
    assert rows[2]["chosen"] == rows[3]["rejected"] and rows[2]["chosen_source"] == rows[3]["rejected_source"]
    assert all("margin" not in row for row in rows)


def test_votes_are_listed_for_chosen_and_their_share_is_the_label(three: PreferenceStore):
    rows = exported(three, rows="votes", ties="keep")
    assert [row["votes"] for row in rows] == [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.5, 0.5, 0.5]]
    assert all(len(row["annotators"]) == 3 for row in rows)
    assert not find_bad_rows(rows).bad


def test_a_fraction_is_no_vote():
    store = filled(3)
    add_task(store, Prompt("More?"), {"scorer": 0.8})
    with pytest.raises(UserError, match=r"such as 0\.[28] of scorer; export them with rows='answers', which keeps"):
        export_preferences(store, method="majority", rows="votes")
    # What the message says of the other ways.
    assert exported(store, rows="answers", soft_labels=True)[-1]["preference"] == pytest.approx(0.8)
    assert exported(store, soft_labels=True)[-1]["preference"] == 1.0


def test_a_row_an_answer_has_the_order_of_its_answer(three: PreferenceStore):
    export = export_preferences(three, method="majority", rows="answers")
    rows = export.rows.to_list()
    assert [row["answer"] for row in rows] == [1.0] * 6
    assert [row["chosen_source"] for row in rows] == ["strong"] * 5 + ["weak"]
    assert rows[5]["p_chosen"] == pytest.approx(1 / 3) and rows[5]["vote_counts"]["chosen"] == 1
    assert export.left_out == {"answers that are ties": 3}
    assert len(exported(three, rows="answers", ties="keep")) == 12


def test_annotators_are_digests_unless_names_are_asked_for(three: PreferenceStore):
    store = three
    text = str(exported(store))
    assert not any(name in text for name in PEOPLE)
    assert exported(store) == exported(store)
    assert [answer["annotator"] for answer in exported(store, names=True)[0]["answers"]] == list(PEOPLE)
    other = {answer["annotator"] for answer in exported(filled(1))[0]["answers"]}
    assert not other & {answer["annotator"] for answer in exported(store)[0]["answers"]}


def test_reasons_can_be_left_out(three: PreferenceStore):
    assert exported(three)[0]["answers"][0]["reason"] == "clear"
    assert exported(three, reasons=False)[0]["answers"][0]["reason"] is None


def test_what_is_left_out_is_counted_by_reason(caplog: pytest.LogCaptureFixture):
    store = filled(6)
    add_task(store, Prompt("Known?"), {"Anna Q": 1.0}, gold_best=GOOD)
    add_task(store, Prompt("Unseen?"), {})
    add_task(store, Prompt("Begun?"), {"Anna Q": 1.0}, wanted=3)
    add_task(store, Prompt("Same?"), {"Anna Q": 1.0}, texts=("Yes.", " "))
    with caplog.at_level(logging.INFO, "hf_align"):
        export = export_preferences(store, method="majority", min_agreement=0.7)
    assert export.left_out == {
        "tasks whose commonest vote has a share below 0.7": 2,
        "ties": 2,
        "gold questions": 1,
        "tasks without an answer": 1,
        "tasks that wait for more answers": 1,
        "tasks that can't be trained on, with an empty rejected": 1,
    } or "with an empty chosen" in str(export.left_out)
    assert [record.getMessage() for record in caplog.records if "exported" in record.getMessage()] == [str(export)]
    assert str(export).startswith("exported 2 rows of 2 tasks with 6 answers by 3 annotators; left out: ")
    assert len(exported(store, open_tasks="keep")) == len(exported(store)) + 1


@pytest.mark.parametrize(
    ("votes", "sure", "choice", "rows"),
    [
        ([1.0, 1.0, 1.0], 0.9, {"wanted": 3}, 1),
        ([1.0, 0.9, 0.8], 0.9, {"wanted": 3}, 1),
        ([1.0] * 7, 0.9, {"wanted": 7}, 1),
        ([1.0, 1.0, 0.0], 0.9, {"wanted": 3}, 0),  # another answer is to settle it
        ([1.0, 1.0, 1.0], 0.1, {"wanted": 3}, 0),  # another answer is to replace one that doesn't count
        ([1.0, 1.0, 1.0], 0.9, {"wanted": 4}, 0),  # it was never complete
        ([1.0, 1.0, 1.0], 0.9, {}, 0),  # nothing is known of what was wanted
    ],
)
def test_a_complete_task_that_is_asked_again_to_check_somebody_stays_in_the_export(
    votes: list[float], sure: float, choice: dict[str, int], rows: int
):
    store = PreferenceStore("sqlite://", clock=Clock())
    add_task(store, Prompt("Other?"), {"ben": 1.0})
    task = add_task(store, Prompt("Again?"), {}, wanted=len(votes), choice=choice)
    for number, vote in enumerate(votes):
        store.record(task.id, f"p{number}", vote, id=str(number), confidence=sure)
    store.want(task.id, len(votes) + 1)
    export = export_preferences(store, method="majority")
    assert len(export.rows) == 1 + rows
    assert export.left_out.get("tasks that wait for more answers", 0) == 1 - rows


def test_gold_questions_are_exported_with_the_known_preference():
    store = filled(3)
    add_task(store, Prompt("Known?"), {"Anna Q": 1.0, "Ben R": 1.0}, gold_best=BAD)
    row = exported(store, gold=True)[-1]
    assert row["chosen_source"] == "weak" and row["margin"] == 1.0 and row["provenance"]["gold"]
    assert row["vote_counts"] == {"chosen": 0, "tie": 0, "rejected": 2}


def test_an_adjudicator_decides_and_is_no_vote():
    store = filled(2)
    task = list(store.tasks().values())[1]
    good_first = store.responses()[task.first_id].source == "strong"
    store.record(task.id, "judge", 0.0 if good_first else 1.0, id="j")
    row = exported(store, adjudicators=("judge",), min_agreement=0.7)[1]
    assert row["chosen_source"] == "weak" and row["provenance"]["verdict"] == "adjudicator"
    assert row["vote_counts"] == {"chosen": 1, "tie": 0, "rejected": 2} and len(row["answers"]) == 4
    votes = exported(store, adjudicators=("judge",), rows="votes")[1]
    assert votes["votes"] == [0.0, 0.0, 1.0] and len(votes["annotators"]) == 3


def hurried(votes: dict[str, float], **fields: Any) -> tuple[PreferenceStore, Task]:
    """A store with a task that was first to have 3 answers, and has these; quick's has a quality of (1/6 + .8) / 2."""
    store = PreferenceStore("sqlite://", clock=Clock())
    task = add_task(store, Prompt("Name?"), {}, **{"choice": {"wanted": 3}, "wanted": len(votes), **fields})
    for name, vote in votes.items():
        sure = 0.1 if name == "quick" else 0.9
        turned = vote if store.responses()[task.first_id].source == "strong" else 1 - vote
        store.record(task.id, name, turned, id=name, confidence=sure)
    return store, task


@pytest.mark.parametrize(
    ("votes", "wanted", "rows"),
    [
        ({"anna": 1.0, "quick": 1.0, "ben": 1.0, "cleo": 0.0}, 4, 1),  # replaced
        ({"anna": 1.0, "quick": 1.0, "ben": 1.0}, 3, 0),  # not yet
        ({"anna": 1.0, "quick": 1.0, "ben": 1.0}, 4, 0),
        ({"anna": 1.0, "quick": 1.0, "ben": 1.0, "cleo": 1.0}, 5, 0),  # something else is still asked
    ],
)
def test_a_task_waits_no_more_once_answers_of_low_quality_are_replaced(votes: dict[str, float], wanted: int, rows: int):
    store, _ = hurried(votes, wanted=wanted)
    add_task(store, Prompt("Other?"), {"dan": 1.0}, choice={"wanted": 1})
    export = export_preferences(store, method="majority", min_quality=0.6)
    assert len(export.rows) == rows + 1
    assert export.left_out.get("tasks that wait for more answers", 0) == 1 - rows


def test_an_adjudication_is_no_vote_for_quality_and_track_records_and_always_counts():
    store, task = hurried({"anna": 1.0, "ben": 1.0, "cleo": 1.0})
    votes = exported(store)[0]["answers"]
    store.add(annotators=[Annotator("chief", "adjudicator")])
    store.record(task.id, "chief", 0.5, id="chief", confidence=0.0)
    [row] = exported(store, min_quality=0.8, ties="keep", soft_labels=True)
    assert row["preference"] == 0.5 and row["provenance"]["verdict"] == "adjudicator"
    assert [answer["answer_quality"] for answer in row["answers"]] == [a["answer_quality"] for a in votes] + [None]
    # Nor does a decision that comes first stand among the answers which later ones are measured by.
    store, task = hurried({}, wanted=3)
    store.add(annotators=[Annotator("chief", "adjudicator")])
    for name, vote in (("chief", 0.0), ("anna", 1.0), ("ben", 1.0), ("cleo", 1.0), ("dan", 0.0)):
        store.record(task.id, name, vote, id=name)
    [row] = exported(store)
    assert [answer["answer_quality"] for answer in row["answers"]] == [None, 0.8, 0.8, 0.8, pytest.approx(4 / 6)]


def test_answers_of_low_quality_are_as_if_not_given():
    store = filled(2)
    task = next(iter(store.tasks().values()))
    store.record(task.id, "hasty", 0.5, id="h", confidence=0.0, reason="x")
    rows = exported(store)
    qualities = [answer["answer_quality"] for answer in rows[0]["answers"]]
    reliability = (4 + 0) / (5 + 1)  # wrong on a task that three others agree on
    assert qualities[3] == pytest.approx((reliability + 0 + 1 / 20) / 3)
    assert rows[0]["quality"] == pytest.approx(sum(qualities) / 4)
    export = export_preferences(store, method="majority", min_quality=0.5)
    assert export.left_out["answers with a quality below 0.5"] == 1
    assert len(export.rows[0]["answers"]) == 3 and export.rows[0]["margin"] == 1.0


def test_answers_that_collecting_would_not_count_are_counted_aloud():
    store = PreferenceStore("sqlite://", clock=Clock())
    task = add_task(store, Prompt("One?"), {}, wanted=2)
    for name, sure in (("ben", 0.9), ("cleo", 0.1)):  # mean of 1 and .8, and of .1 / .6 and .8
        store.record(task.id, name, 1.0, id=name, confidence=sure)
    export = export_preferences(store, method="majority")
    assert export.figures["below_limit"] == {"limit": 0.8, "answers": 1}
    [line] = [line for line in export.lines() if "below" in line]
    assert line.startswith("a quality below 0.8 in 1 of 2 answers, which") and "--min-quality 0.8" in line
    counted = export_preferences(store, method="majority", min_quality=0.8, open_tasks="keep")
    assert not any("below" in line for line in counted.lines())


@pytest.mark.parametrize("method", ["dawid_skene", "weighted"])
def test_every_method_gives_the_planted_order(method: str):
    rows = exported(filled(6), method=method)
    assert {row["chosen_source"] for row in rows} == {"strong"}
    assert {row["provenance"]["method"] for row in rows} == {method}


def test_no_prompt_is_in_both_splits_and_a_prompt_stays_when_the_store_grows():
    def test_prompts(tasks: int) -> set[str]:
        splits = export_preferences(filled(tasks), method="majority", test_share=0.4).splits
        train, test = set(splits["train"]["prompt"]), set(splits["test"]["prompt"])
        assert not train & test and len(train | test) == 2 * tasks // 3
        return test

    few, many = test_prompts(15), test_prompts(30)
    assert few == many & {f"Question {number}?" for number in range(15)}
    with pytest.raises(UserError, match="of 2 prompts none is in test"):
        export_preferences(filled(3), method="majority", test_share=1e-9)


def test_conversations_stay_messages_and_texts_beside_them_become_some(caplog: pytest.LogCaptureFixture):
    store = PreferenceStore("sqlite://", clock=Clock())
    chat: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    reply: Any = [{"role": "assistant", "content": "Hello."}]
    add_task(store, Prompt(chat), {"Anna Q": 1.0}, texts=(reply, [{"role": "assistant", "content": "What?"}]))
    add_task(store, Prompt([{"role": "user", "content": "Bye?"}]), {"Anna Q": 1.0}, texts=("Bye.", "No."))
    rows = exported(store)
    assert rows[0]["prompt"] == chat and rows[0]["chosen"] == reply
    assert rows[1]["chosen"] == [{"role": "assistant", "content": "Bye."}]
    add_task(store, Prompt("Text?"), {"Anna Q": 1.0}, texts=("Yes.", "No."))
    rows = exported(store)
    assert rows[2]["prompt"] == [{"role": "user", "content": "Text?"}]
    assert "1 of 3 rows are text and become conversations" in caplog.text
    assert not find_bad_rows(rows).bad


def test_columns_of_prompts_come_back_and_none_takes_the_place_of_another():
    store = PreferenceStore("sqlite://", clock=Clock())
    columns = {"topic": "tea", "margin": 7, "label": 3, "answers": ["x"], "mixed": "a", "tools": None}
    add_task(store, Prompt("Tea?", columns=columns), {"Anna Q": 1.0})
    add_task(store, Prompt("Milk?", columns={"topic": "milk", "mixed": 5}), {"Anna Q": 1.0})
    tea, milk = exported(store)
    assert (tea["topic"], tea["prompt_margin"], tea["prompt_label"], tea["prompt_answers"]) == ("tea", 7, 3, ["x"])
    assert tea["margin"] == 1.0 and "label" not in tea and milk["prompt_margin"] is None
    assert (tea["mixed"], milk["mixed"]) == ('"a"', "5")


def test_no_column_of_a_prompt_takes_the_place_of_another():
    store = PreferenceStore("sqlite://", clock=Clock())
    add_task(store, Prompt("Tea?", columns={"prompt_margin": 1, "margin": 2}), {"Anna Q": 1.0})
    add_task(store, Prompt("Milk?", columns={"margin": 3}), {"Anna Q": 1.0})
    tea, milk = exported(store)
    assert (tea["prompt_margin"], tea["prompt_prompt_margin"]) == (1, 2)
    assert (milk["prompt_margin"], milk["prompt_prompt_margin"], milk["margin"]) == (None, 3, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "majorty"}, "method is 'majorty'; did you mean majority?"),
        ({"rows": "x"}, "rows is 'x'; give one of tasks, votes, answers"),
        ({"test_share": 1}, "test_share is 1; give a number from 0 to below 1"),
        ({"min_agreement": float("nan")}, "min_agreement is nan; give a number from 0 to 1"),
        ({"soft_labels": True, "rows": "votes"}, "two ways to say the same; leave one out"),
        ({"soft_label": True}, "export has no option soft_label; did you mean soft_labels?"),
    ],
)
def test_wrong_options_are_refused_with_one_sentence(options: dict[str, Any], message: str, three: PreferenceStore):
    with pytest.raises(UserError) as error:
        export_preferences(three, **{"method": "majority", **options})
    assert message in str(error.value)


def test_a_store_with_nothing_to_export_is_refused_with_the_reasons():
    store = PreferenceStore("sqlite://", clock=Clock())
    with pytest.raises(UserError, match="nothing to export: it has no tasks"):
        export_preferences(store, method="majority")
    add_task(store, Prompt("Tie?"), {"Anna Q": 0.5})
    with pytest.raises(UserError, match=r"nothing to export: all of it is left out: ties \(1\)"):
        export_preferences(store, method="majority")


def test_a_store_exports_itself(three: PreferenceStore):
    assert three.export(method="majority").to_list() == exported(three)
    with pytest.raises(UserError, match="for splits use export_preferences"):
        three.export(test_share=0.5)
