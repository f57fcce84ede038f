import logging
import re
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from hf_align.collators.checks import find_bad_rows
from hf_align.data import to_preferences
from hf_align.data.layouts.conversion import convert_rows
from hf_align.errors import UserError
from tests.data.layouts.example import asked, said

STRENGTHS: list[dict[str, Any]] = [
    {"prompt": "Two?", "response_1": "2", "response_2": "3", "preference_strength": -3},
    {"prompt": "Six?", "response_1": "6", "response_2": "VI", "preference_strength": 0},
    {"prompt": "Ten?", "response_1": "10", "response_2": None, "preference_strength": 1},
]
SCORED = {"prompt": "Name a hat.", "responses": ["Beret.", "Shoe.", "Cap."], "scores": [5.0, 1.0, 4.6], "topic": "wear"}


def test_one_line_says_what_was_recognised_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hf_align"):
        pairs = to_preferences(STRENGTHS)
        to_preferences(pairs)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "WARNING",  # a row can't be read
            "recognised helpsteer2_preference (HelpSteer2-Preference); rows: 3, pairs: 1; "
            "left out: ties (1), rows with no response_2 (1: row 2)",
        ),
        ("INFO", "recognised pairs (hf_align, TRL); rows: 1, pairs: 1; left out: nothing"),
    ]


def test_kept_ties_are_two_rows_of_half_the_weight_and_no_margin() -> None:
    rows = to_preferences(STRENGTHS, ties="keep").to_list()
    assert rows == [
        {"prompt": "Two?", "chosen": "2", "rejected": "3", "weight": 1.0, "strength": 3.0},
        {"prompt": "Six?", "chosen": "6", "rejected": "VI", "weight": 0.5, "strength": 0.0},
        {"prompt": "Six?", "chosen": "VI", "rejected": "6", "weight": 0.5, "strength": 0.0},
    ]
    assert not find_bad_rows(Dataset.from_list(rows)).bad


def test_rankings_become_pairs_of_gaps_above_the_least() -> None:
    conversion = convert_rows([SCORED], as_pairs=True)
    assert conversion.kind == "pairs" and conversion.dropped == {"pairs with a gap of at most 0.5": 1}
    assert conversion.rows.to_list() == [
        {"prompt": "Name a hat.", "chosen": "Beret.", "rejected": "Shoe.", "margin": 4.0, "topic": "wear"},
        {"prompt": "Name a hat.", "chosen": "Cap.", "rejected": "Shoe.", "margin": 3.6, "topic": "wear"},
    ]
    assert len(convert_rows([SCORED], as_pairs=True, min_gap=0.3).rows) == 3


def test_ranks_become_pairs_of_what_is_ordered() -> None:
    ranked = {"prompt": "Name a hat.", "responses": ["a", "b", "c", "d"], "ranking": [0, 0, None, -1]}
    conversion = convert_rows([ranked], as_pairs=True)
    assert [(row["chosen"], row["rejected"]) for row in conversion.rows.to_list()] == [
        ("a", "c"),
        ("a", "d"),
        ("b", "c"),
        ("b", "d"),
    ]
    assert conversion.dropped == {"ties": 1, "pairs of responses below all ranked": 1}
    assert "margin" not in conversion.rows.column_names


def test_responses_that_nobody_judged_are_counted_when_rankings_become_pairs() -> None:
    scored = convert_rows([SCORED, {**SCORED, "scores": [5.0, None, 1.0]}], as_pairs=True)
    assert len(scored.rows) == 3
    assert scored.dropped == {"pairs with a gap of at most 0.5": 1, "responses without a score or rating": 1}
    rated = {"prompt": "Hi.", "responses": ["a", "b", "c"], "ratings": [[1, 2], [], [4]]}
    assert convert_rows([rated], as_pairs=True).dropped == {"responses without a score or rating": 1}


def test_rows_that_fault_are_numbered_in_the_data_set_when_rankings_become_pairs() -> None:
    faulty = [SCORED, {**SCORED, "scores": [1.0, 2.0]}, {**SCORED, "responses": ["a", "a", "b"]}]
    conversion = convert_rows(faulty, as_pairs=True)
    assert conversion.unusable == {
        "another number of responses than values in scores": [1],
        "two identical responses": [2],
    }


def test_other_columns_never_take_a_name_that_trainers_read() -> None:
    row = {"prompt": "Two?", "response_1": "2", "response_2": "3", "preference_strength": -3, "label": "sums"}
    assert to_preferences([{**row, "votes": 7}])[0] == {
        "prompt": "Two?",
        "chosen": "2",
        "rejected": "3",
        "margin": 3.0,
        "source_label": "sums",
        "source_votes": 7,
    }


def test_defects_in_the_first_rows_dont_hide_the_layout() -> None:
    good = {"prompt": "Two?", "response_1": "2", "response_2": "3", "preference_strength": -3}
    defects = [{**good, "response_1": None}, {**good, "preference_strength": None}, {}, {**good, "prompt": {"a": 1}}]
    conversion = convert_rows([*defects, *[good] * 6])
    assert len(conversion.rows) == 6
    assert conversion.unusable == {
        "no response_1": [0],
        "no preference_strength": [1],
        "no prompt": [2],
        "a prompt that is no text": [3],
    }


def test_what_was_a_pair_stays_one_with_its_defects() -> None:
    sides = [("x", "x"), ("", "y"), (None, "z"), ("w", "v")]
    rows = convert_rows([{"question": "Q?", "chosen": a, "rejected": b} for a, b in sides]).rows
    assert rows.to_list() == [{"prompt": "Q?", "chosen": a, "rejected": b} for a, b in sides]


def test_values_of_several_types_may_become_one() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]
    rows = [
        {"prompt": parts, "chosen": said("Hello."), "rejected": said("No.")},
        {"prompt": "Hi.", "chosen": [{"role": "assistant", "content": parts[0]["content"]}], "rejected": said("No.")},
        {"prompt": 7, "chosen": said("Hello."), "rejected": said("No.")},
        {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": said("A."), "rejected": said("B.")},
    ]
    conversion = convert_rows(rows)
    assert conversion.layout.name == "content_parts" and len(conversion.rows) == 2
    assert conversion.unusable == {
        "a prompt that is neither text nor messages": [2],
        "a message whose content is not text": [3],
    }


def test_what_is_missing_inside_a_value_makes_a_row_unusable() -> None:
    good = {"question": {"full_text": "Q?"}, "answer_0": "a", "answer_1": "b", "score_0": 1, "score_1": -1}
    conversion = convert_rows([good, {**good, "question": {"text": "Q?"}}])
    assert conversion.unusable == {"values that don't fit the layout ('full_text' is missing)": [1]}


def test_converted_conversations_go_to_the_trainers() -> None:
    rows = to_preferences([{"prompt": "Hi.", "chosen": asked("Hi.", "Hello."), "rejected": asked("Hi.", "No.")}])
    assert not find_bad_rows(rows).bad
    assert rows.to_list() == [{"prompt": asked("Hi."), "chosen": said("Hello."), "rejected": said("No.")}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"prompt": "Hi.", "choosen": "a", "rejected": "b"}],
            r"none of the known layouts; it has prompt \(text\), choosen \(text\), rejected \(text\)\. "
            r"The nearest is pairs \(hf_align, TRL\), which needs chosen \(is it choosen\?\), too: rename the columns",
        ),
        (
            [{"prompt": "Hi.", "chosen": 3, "rejected": 4}],
            r"it has prompt \(text\), chosen \(number\), rejected \(number\)\. The columns are those of ",
        ),
        ([{"text": "Hi."}], r"it has text \(text\)\. docs/reference/layouts\.md lists the layouts"),
        (
            [{"prompt": "Hi.", "text": "a"}],
            r"it has prompt \(text\), text \(text\)\. With a prompt alone there is nothing",
        ),
        (
            [{"prompt": "Hi."}],
            "nothing to compare: pairs have chosen and rejected, too, and rankings have responses with",
        ),
        (
            [{"question": "Hi?", "query": "Ho?", "chosen": "a", "rejected": "b"}],
            "recognised question_pairs, which has one of question and query, and the data set has both: drop or rename",
        ),
        (
            [{"prompt": "Hi.", "response": "a", "rating": 1, "score": 5}],
            "recognised rated_responses, which has one of rating and score, and the data set has both",
        ),
        ([], "the data set has no rows"),
        (3, "dataset must be a Dataset or a list of rows, not int"),
        ("rows.jsonl", "dataset must be a Dataset or a list of rows, not str"),
        ([["a"]], "row 0 is list, not a mapping"),
        (
            [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": 1, "chosen": "b", "rejected": "c"}],
            "a column of a data set holds values of one type: prompt is text in row 0 and number in row 1",
        ),
        (
            STRENGTHS[1:],
            r"recognised helpsteer2_preference, but none of the 2 rows can be used; left out: ties \(1\), rows with no "
            r"response_2 \(1: row 1\); check the columns, or name another layout",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_with_what_was_seen(rows: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        to_preferences(rows)
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)


def test_splits_are_not_joined() -> None:
    rows = Dataset.from_list([SCORED])
    with pytest.raises(UserError, match="pass one split, not the whole dict of train, test"):
        to_preferences(DatasetDict({"train": rows, "test": rows}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"ties": "both"}, 'ties must be "drop" or "keep"'),
        ({"min_gap": -1}, "min_gap must be a number of rating points >= 0"),
        ({"layout": "helpster"}, "there is no layout helpster; did you mean helpsteer?"),
        ({"layout": "foo"}, "there is no layout foo; docs/reference/layouts.md lists them"),
        ({"layout": "nectar"}, "layout nectar needs the columns answers; the data set has prompt, responses"),
    ],
)
def test_choices_are_checked_first(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        to_preferences([SCORED], **choice)


def test_a_layout_can_be_named() -> None:
    rows = [{"prompt": "Hi.", "responses": ["Go.", "Hello."], "ranking": [1, 2]}]
    assert to_preferences(rows, layout="rankings").to_list() == rows  # as they are, though the best rank isn't 0
    assert to_preferences(rows)[0]["ranking"] == [0, 1]
