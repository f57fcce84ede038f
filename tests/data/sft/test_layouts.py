"""Every layout becomes what training on demonstrations reads."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from hf_align.collators.demonstrations import read_demonstrations
from hf_align.collators.rows import RowProblem
from hf_align.data import SFTReport, prepare_sft
from hf_align.data.sft.layouts import STARTED, UNANSWERED, Demonstration, columns_for, find_layout

ASKED, ANSWERED = "Was the film worth it?", "It was, twice."
USER, ASSISTANT = {"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}
CALM = {"role": "system", "content": "Be brief."}
THANKS, GLAD = {"role": "user", "content": "Thanks."}, {"role": "assistant", "content": "Glad to help."}


def read(row: dict[str, Any]) -> Demonstration:
    layout = find_layout(list(row))
    assert layout is not None
    return layout.read(row)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "The film was", "completion": " a joy."}, {"prompt": "The film was", "completion": " a joy."}),
        ({"prompt": [USER], "completion": ANSWERED}, {"messages": [USER, ASSISTANT]}),
        ({"prompt": ASKED, "completion": [ASSISTANT]}, {"messages": [USER, ASSISTANT]}),
        ({"prompt": [USER], "completion": [ASSISTANT]}, {"messages": [USER, ASSISTANT]}),
        ({"messages": [USER, ASSISTANT]}, {"messages": [USER, ASSISTANT]}),
        ({"messages": [USER, ASSISTANT], "prompt": "an id"}, {"messages": [USER, ASSISTANT]}),
        (
            {"conversations": [{"from": "human", "value": ASKED}, {"from": "GPT", "value": ANSWERED, "role": None}]},
            {"messages": [USER, ASSISTANT]},
        ),
        (
            {
                "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWERED}],
                "system": "Be brief.",
            },
            {"messages": [CALM, USER, ASSISTANT]},
        ),
        ({"conversation": [{"role": "human", "content": ASKED}, ASSISTANT]}, {"messages": [USER, ASSISTANT]}),
        ({"instruction": ASKED, "input": "", "output": ANSWERED}, {"messages": [USER, ASSISTANT]}),
        (
            {"instruction": "Was it?", "input": "The film.", "output": ANSWERED},
            {"messages": [{"role": "user", "content": "Was it?\n\nThe film."}, ASSISTANT]},
        ),
        (
            {"instruction": "Thanks.", "output": "Glad to help.", "history": [[ASKED, ANSWERED]]},
            {"messages": [USER, ASSISTANT, THANKS, GLAD]},
        ),
        ({"question": ASKED, "answer": ANSWERED}, {"messages": [USER, ASSISTANT]}),
        ({"system_prompt": "Be brief.", "query": ASKED, "response": ANSWERED}, {"messages": [CALM, USER, ASSISTANT]}),
        ({"system": "", "question": ASKED, "response": ANSWERED}, {"messages": [USER, ASSISTANT]}),
        ({"prompt": ASKED, "chosen": ANSWERED, "rejected": "No."}, {"prompt": ASKED, "completion": ANSWERED}),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, GLAD]}, {"messages": [USER, ASSISTANT]}),
        (
            {"prompt": ASKED, "chosen": "No.", "rejected": ANSWERED, "label": 0.2},
            {"prompt": ASKED, "completion": ANSWERED},
        ),
        (
            {"prompt": ASKED, "responses": ["No.", ANSWERED], "scores": [1, 4]},
            {"prompt": ASKED, "completion": ANSWERED},
        ),
        ({"prompt": [USER], "responses": ["No.", ANSWERED], "ranking": [None, 0]}, {"messages": [USER, ASSISTANT]}),
        ({"text": "A film about a bicycle."}, {"text": "A film about a bicycle."}),
    ],
)
def test_each_layout_becomes_text_or_messages_that_training_takes(
    row: dict[str, Any], expected: dict[str, Any]
) -> None:
    rows = columns_for([read(row)])
    assert rows == [expected]
    assert len(read_demonstrations(Dataset.from_list(rows), "train_dataset")) == 1


def test_a_conversation_is_cut_to_questions_with_answers() -> None:
    cut = read({"conversations": [GLAD, USER, ASSISTANT, THANKS]})
    assert columns_for([cut]) == [{"messages": [USER, ASSISTANT]}] and cut.changes == (UNANSWERED, STARTED)
    with_system = read({"messages": [CALM, GLAD, USER, ASSISTANT]})
    assert columns_for([with_system]) == [{"messages": [CALM, USER, ASSISTANT]}]


def test_rows_of_different_forms_become_one_form() -> None:
    text, talk = read({"prompt": f"{ASKED} ", "completion": f" {ANSWERED}"}), read({"messages": [USER, ASSISTANT]})
    assert columns_for([text, talk]) == [{"messages": [USER, ASSISTANT]}] * 2
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look"}}]}
    found = {"role": "tool", "content": "A film."}
    several = read({"prompt": [USER], "completion": [call, found, ASSISTANT]})
    assert columns_for([several, talk])[1] == {"prompt": [USER], "completion": [ASSISTANT]}, "all is learnt, as given"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"question": ASKED, "answer": None}, "no answer"),
        ({"question": " ", "answer": ANSWERED}, "an empty question"),
        ({"messages": [USER]}, "no question with an answer of the assistant"),
        ({"messages": ASKED}, "messages that are text (call the column text)"),
        ({"conversations": [{"from": "narrator", "value": "Once."}]}, "a message from 'narrator' in conversations"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "x"}]}, "a message without content"),
        ({"instruction": ASKED, "output": ANSWERED, "history": "none"}, "a history that is no list"),
        ({"prompt": [USER], "completion": [USER]}, "a completion that doesn't end with an assistant message"),
        ({"chosen": "The film was a joy.", "rejected": "The film was long."}, "text can't be divided"),
        ({"prompt": ASKED, "responses": ["No.", ANSWERED], "scores": [1]}, "another number of responses"),
        ({"text": [USER]}, "a text that is a list of messages"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(RowProblem) as caught:
        read(row)
    assert problem in str(caught.value)


def test_other_columns_are_no_layout() -> None:
    assert find_layout(["title", "plot"]) is None


def test_a_completion_that_was_judged_bad_is_no_demonstration() -> None:
    rows = [{"prompt": ASKED, "completion": text, "label": good} for text, good in ((ANSWERED, True), ("No.", False))]
    report = SFTReport()
    assert prepare_sft(rows, report=report)["completion"][:] == [ANSWERED]
    assert [(each.place.row, each.detail) for each in report.dropped] == [
        (1, "a completion judged bad (label is false)")
    ]
