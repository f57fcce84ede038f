"""Rows of every layout as trainers take them: identical to a conversion before."""

import logging
import re
from typing import Any

import pytest
from datasets import Dataset

from hf_align.collators.judged import read_judged
from hf_align.collators.rows import RowProblem, text_of
from hf_align.data import to_preferences
from hf_align.data.layouts.recognition import prompt_rows, scored_rows, trained_rows
from hf_align.errors import UserError
from tests.data.layouts.example import Example
from tests.data.layouts.examples import EXAMPLES

READ = {
    "pairs",
    "rankings",
    "reward_bench",
    "hh_transcripts",
    "ultrafeedback_binarized",
    "texts_after_messages",
    "content_parts",
    "system_pairs",
}
"""Layouts that trainers read without a conversion."""
PAIR = {"prompt": "Name a gem.", "chosen": "Opal.", "rejected": "Glue."}
ASKED, ANSWER = {"role": "user", "content": "Name a gem."}, {"role": "assistant", "content": "Opal."}


def read(row: Any) -> Any:
    """Texts and labels that a trainer reads in a row; None if it refuses it."""
    try:
        sides, values = read_judged(dict(row), {})
    except RowProblem:
        return None
    return text_of(sides.prompt or ""), list(map(text_of, sides.responses)), values


@pytest.mark.parametrize("plain", [False, True], ids=["reward", "policy"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.layout)
def test_every_layout_is_taken_as_it_is_converted(
    example: Example, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rows = list(example.rows)
    try:
        expected = to_preferences(rows, as_pairs=plain).to_list()
    except UserError as error:
        with pytest.raises(UserError, match=re.escape(str(error))):
            trained_rows(rows, "train_dataset", plain=plain)
        return
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        taken = trained_rows(rows, "train_dataset", plain=plain)
    if taken is not rows:
        assert taken.to_list() == expected
        assert caplog.text.count(f"train_dataset: recognised {example.layout} (") == 1
        return
    assert "recognised" not in caplog.text and example.layout in READ
    if example.layout != "hh_transcripts":  # which are texts
        assert list(filter(None, map(read, rows))) == list(filter(None, map(read, expected)))


def test_rows_that_are_pairs_already_stay_with_all_their_columns(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**PAIR, "weight": 2.0, "label": 0.7}] * 3 + [{**PAIR, "chosen": None, "weight": 1.0, "label": 0.5}]
    data = Dataset.from_list(rows)
    assert trained_rows(data, "train_dataset") is data and trained_rows(rows, "train_dataset", plain=True) is rows
    messages = [
        {
            "prompt": "Name a gem.",
            "chosen": [ASKED, ANSWER],
            "rejected": [ASKED, {**ANSWER, "content": "Oak."}],
            "weight": 2.0,
        }
    ]
    assert trained_rows(messages, "train_dataset") is messages  # a layout, too, but its weight would get another name
    assert not caplog.text


def test_what_both_begin_with_is_no_prompt_beside_a_question(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"question": "Name a tree.", "chosen": "The oak.", "rejected": "The sea."}]
    assert trained_rows(rows, "train_dataset").to_list() == [
        {"prompt": "Name a tree.", "chosen": "The oak.", "rejected": "The sea."}
    ]
    rows = [{"question": "Name a tree.", "chosen": "Name a tree. The oak.", "rejected": "Name a tree. The sea."}]
    assert trained_rows(rows, "train_dataset") is rows and to_preferences(rows).to_list() == rows
    assert "question_pairs" in caplog.text


def test_what_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "Name a gem.", "response": text, "rating": rating} for text, rating in (("a", 5), ("b", "x"))]
    with pytest.raises(UserError, match=r"^train_dataset: recognised rated_responses, but none of the 2 rows"):
        trained_rows(rows, "train_dataset")
    rows += [{"prompt": "Name a gem.", "response": "c", "rating": 2}]
    assert [row["margin"] for row in trained_rows(rows, "train_dataset")] == [3.0]
    assert "rows: 3, pairs: 1; left out: rows with a rating that is not a number (1: row 1)" in caplog.text


@pytest.mark.parametrize(
    ("data", "plain"),
    [(None, False), ([], False), ([1], False), (Dataset.from_list([]), False), ("name", False), ({"a": []}, False)],
)
def test_what_holds_no_rows_is_left_to_the_trainer(data: Any, plain: bool) -> None:
    assert trained_rows(data, "train_dataset", plain=plain) is data


def test_rows_of_no_layout_are_refused_with_what_is_near_or_left_to_the_trainer() -> None:
    with pytest.raises(UserError, match=r"^eval_dataset: the data set has none of the known layouts; it has prompt"):
        trained_rows([{"prompt": "x", "answer": "y"}], "eval_dataset")
    broken = [{**PAIR, "chosen": 7}]
    assert trained_rows(broken, "train_dataset") is broken


def test_transcripts_are_read_as_text_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    start = "\n\nHuman: Name a gem.\n\nAssistant:"
    rows = [{"chosen": f"{start} Opal.", "rejected": f"{start} Glue."}]
    assert trained_rows(rows, "train_dataset") is rows
    assert "trained on as they stand, as text; hf-align convert makes messages of them" in caplog.text


RATED = [
    {"prompt": prompt, "response": text, "rating": rating}
    for prompt, text, rating in (("Name a gem.", "Opal.", 5), ("Name a gem.", "Glue.", 1), ("Say hi.", "Hi!", 4))
]
RATED = [*RATED, {"prompt": "Say hi.", "response": "No.", "rating": 2}]


def test_prompts_are_taken_from_any_layout(caplog: pytest.LogCaptureFixture) -> None:
    given = [{"prompt": "Name a gem.", "level": 2}]
    assert prompt_rows(given, "train_dataset") is given and not caplog.text
    talks = [{"messages": [ASKED, ANSWER], "level": 2}, {"messages": [ASKED], "level": 3}]
    assert prompt_rows(talks, "train_dataset").to_list() == [{"prompt": [ASKED], **talk} for talk in talks]
    assert "train_dataset: prompts are read from messages." in caplog.text
    scored = [{name.replace("prompt", "instruction"): value for name, value in row.items()} for row in RATED]
    assert prompt_rows(scored, "data").to_list() == [{"prompt": "Name a gem."}, {"prompt": "Say hi."}]
    assert "rows: 4, different prompts: 2" in caplog.text
    with pytest.raises(UserError, match=r"^data has no column prompt, and the data set has none of the known layouts"):
        prompt_rows([{"text": "Hi."}], "data")


def test_rows_to_score_are_converted_where_they_are_of_another_layout(caplog: pytest.LogCaptureFixture) -> None:
    for rows in ([PAIR], [{"prompt": "Hi.", "response": "x", "rating": 4}], [{"messages": [ASKED, ANSWER]}]):
        assert scored_rows(rows, "data") is rows
    opal, oak = ({"from": "gpt", "value": text} for text in ("Opal.", "Oak."))
    rows = [{"conversations": [{"from": "human", "value": "Name a gem."}], "chosen": opal, "rejected": oak}]
    assert scored_rows(rows, "data").to_list() == to_preferences(rows).to_list()
    assert "data: recognised sharegpt_pairs" in caplog.text
    unknown = [{"text": "Hi."}]
    assert scored_rows(unknown, "data") is unknown
