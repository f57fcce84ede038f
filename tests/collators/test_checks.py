import logging
import math

import pytest
from datasets import Dataset, IterableDataset

from hf_align.collators import check_preferences, find_bad_rows
from hf_align.errors import UserError


def rows(*changes, n=8):
    """`n` good rows, of which the first are changed."""
    good = [{"prompt": f"Question {i}?", "chosen": f" good {i}", "rejected": f" bad {i}"} for i in range(n)]
    return [row | change for row, change in zip(good, changes, strict=False)] + good[len(changes) :]


def error(data, **kwargs):
    with pytest.raises(UserError) as caught:
        check_preferences(data, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_data_set_passes_silently(caplog):
    data = Dataset.from_list(rows())
    assert check_preferences(data) is data
    assert not caplog.records


def test_all_problems_stand_in_one_line_with_counts_and_first_rows():
    bad = [{"chosen": ""}, {}, {"rejected": None}, *[{"chosen": " "}] * 6]
    assert error(Dataset.from_list(rows(*bad, n=20)), name="eval_dataset") == (
        "eval_dataset: 7 rows have an empty chosen (rows 0, 3, 4, 5, 6, ...); 1 row has no rejected (row 2); "
        "fix or drop them: hf-align inspect DATASET --fix OUT writes the rows without them; "
        "find_bad_rows(eval_dataset).bad_rows lists their numbers."
    )


def test_weights_must_not_all_be_zero():
    rows = [{"prompt": "p", "chosen": f"good {n}", "rejected": f"bad {n}", "weight": 0.0} for n in range(3)]
    with pytest.raises(UserError, match="every weight is 0, so nothing would be learned"):
        check_preferences(rows)
    check_preferences([*rows, {**rows[0], "chosen": "better", "weight": 0.5}])


@pytest.mark.parametrize("name", ["margin", "weight"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (math.nan, "a {} that is NaN or infinite"),
        (math.inf, "a {} that is NaN or infinite"),
        (-0.5, "a negative {}"),
        (None, "no {}"),
        (1e39, r"a {} that is beyond 1e+18, too large for float32"),
        (10**20, r"a {} that is beyond 1e+18, too large for float32"),
        (10**400, r"a {} that is beyond 1e+18, too large for float32"),
    ],
)
def test_margins_and_weights_must_be_finite_and_not_negative(name, value, problem):
    data = [row | {name: 1.0} for row in rows()]
    data[5][name] = value
    assert error(data).startswith(f"train_dataset: 1 row has {problem.format(name)} (row 5); ")


@pytest.mark.parametrize("value", ["high", True])
def test_a_margin_must_be_a_number(value):
    assert "8 rows have a margin that is not a number" in error([row | {"margin": value} for row in rows()])


def test_one_row_can_have_several_problems():
    findings = find_bad_rows(Dataset.from_list([row | {"margin": -1.0} for row in rows({"chosen": ""}, n=2)]))
    assert findings.bad == {"a negative margin": [0, 1], "an empty chosen": [0]}
    assert findings.bad_rows == [0, 1]


def test_bad_rows_can_be_dropped():
    data = Dataset.from_list(rows({"chosen": ""}, {}, {"rejected": " good 2"}))
    bad = find_bad_rows(data).bad_rows
    assert bad == [0, 2]
    assert len(check_preferences(data.select([i for i in range(len(data)) if i not in bad]))) == 6


def test_a_list_of_rows_becomes_a_data_set():
    data = check_preferences([*rows(n=2), {"chosen": "a b", "rejected": "a c", "prompt": "x", "source": "late key"}])
    assert isinstance(data, Dataset)
    assert data["source"][:] == [None, None, "late key"]


def test_a_list_with_values_of_other_types_names_their_rows():
    assert error(rows({}, {"chosen": 3}, {"rejected": ["b"]})) == (
        "train_dataset: 1 row has a chosen that is neither text nor a list of messages (row 1); 1 row has a rejected "
        "that is neither text nor a list of messages (row 2); fix or drop them."
    )


def test_a_list_of_text_and_messages_is_refused():
    hi, yes, no = ({"role": role, "content": role} for role in ("user", "assistant", "assistant"))
    messages = {"prompt": [hi], "chosen": [yes], "rejected": [no | {"content": "No"}]}
    assert "not text here and messages there" in error([*rows(n=1), messages])


def test_what_is_no_data_set_is_refused():
    assert "not IterableDataset: all of it is checked before training" in error(
        IterableDataset.from_generator(lambda: iter(rows()))
    )
    assert "must be a datasets.Dataset or a list of dicts, not dict" in error({"train": rows()})
    assert "not str" in error("some/dataset")
    assert error(Dataset.from_dict({"chosen": [], "rejected": []})) == "train_dataset has no rows."


def test_missing_columns_are_named_with_those_there_are():
    assert error(Dataset.from_list([{"prompt": "a", "completion": "b", "rejected": "c"}])) == (
        "train_dataset has no column chosen: it has prompt, completion, rejected, and 'chosen' and 'rejected' are "
        "needed, with 'prompt' unless both begin with it; rename_column() helps."
    )
    assert "no column chosen and no column rejected" in error(Dataset.from_list([{"text": "a"}]))


def test_a_torch_formatted_data_set_is_read_as_it_is():
    data = Dataset.from_list([row | {"margin": 1.0} for row in rows()]).with_format("torch")
    assert check_preferences(data) is data


def doubts(data):
    return find_bad_rows(Dataset.from_list(data)).doubtful


def test_near_identical_responses_are_doubtful():
    actual = doubts(rows({}, {"chosen": " Yes, sir!", "rejected": "yes sir "}, {"chosen": "👍", "rejected": "👎"}))
    assert list(actual.values()) == [[1]]
    assert "near-identical" in next(iter(actual))


def test_duplicates_and_contradictions_point_at_the_later_row():
    first = rows(n=1)[0]
    swapped = first | {"chosen": first["rejected"], "rejected": first["chosen"]}
    other_prompt = swapped | {"prompt": "Another question?"}
    assert doubts([first, other_prompt, swapped, first]) == {
        "the opposite preference earlier on": [2, 3],
        "an exact duplicate earlier on": [3],
    }


def test_contradictions_show_across_conversation_formats():
    def turn(role, text):
        return {"role": role, "content": text}

    hi, yes, no = turn("user", "Hi"), turn("assistant", "Yes"), turn("assistant", "No")
    data = [
        {"prompt": [hi], "chosen": [yes], "rejected": [no]},
        {"prompt": [hi], "chosen": [hi, no], "rejected": [hi, yes]},
    ]
    assert doubts(data) == {"the opposite preference earlier on": [1]}


QUESTION = {"question": "What is it?", "chosen": "It is tea.", "rejected": "No idea."}
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]


@pytest.mark.parametrize("name", ["question", "input", "instruction", "system", "messages", "query"])
def test_a_column_that_looks_like_the_prompt_and_is_not_read_stops(name):
    column = {name: TURNS if name == "messages" else "What is it?"}
    row = {"chosen": "It is tea.", "rejected": "No idea."} | column
    assert error([row, row], name="data") == (
        "data has no column prompt, 2 rows have chosen and rejected without a common beginning (rows 0, 1), and "
        f'{name!r} would not be read: is this the prompt? use data.rename_column("{name}", "prompt").'
    )
    check_preferences([row | {"prompt": "What is it?"}])


def test_several_such_columns_and_conversations_without_a_prompt_stop_too():
    assert "'question' and 'system' would not be read" in error([QUESTION | {"system": "Be brief."}])
    answers = {"chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "No"}]}
    assert "'question' would not be read: is this the prompt?" in error([QUESTION | answers])


def test_such_a_column_may_stand_beside_a_prompt_that_both_responses_begin_with(caplog):
    both = {"chosen": "What is it? Tea.", "rejected": "What is it? No idea."}
    talks = {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "No"}], "messages": TURNS}
    with caplog.at_level(logging.WARNING):
        check_preferences([QUESTION | both])
        check_preferences([talks])
        assert not caplog.records
        check_preferences([QUESTION | {"rejected": "It is milk."}, QUESTION | both], name="data")
    assert [record.getMessage() for record in caplog.records] == [
        "data: 1 row has a prompt of shared words alone, without what is in 'question' (row 0); is one of them "
        "the prompt?"
    ]


def test_outliers_in_length_are_doubtful():
    actual = doubts(rows({}, {"chosen": "long " * 1000}))
    assert list(actual.values()) == [[1]]
    assert next(iter(actual)).startswith("more than 4000 characters")


def test_a_margin_of_0_is_doubtful_only_where_it_weights_the_loss(caplog: pytest.LogCaptureFixture):
    check_preferences([row | {"margin": 0.0} for row in rows()], margin_weights=False)
    assert "margin" not in caplog.text
    check_preferences([row | {"margin": 0.0} for row in rows()])
    assert "8 rows have a margin of 0" in caplog.text


def test_zero_margins_and_repeated_prompts_are_doubtful():
    data = [row | {"margin": 1.0} for row in rows({}, {}, {"chosen": "Question 2? x", "rejected": "Question 2? y"})]
    data[1]["margin"] = 0.0
    assert sorted(doubts(data).values()) == [[1], [2]]


def test_doubtful_rows_make_one_warning(caplog):
    data = rows({"chosen": " Yes!", "rejected": "yes"})
    with caplog.at_level(logging.WARNING):
        check_preferences([*data, data[3]], name="eval_dataset")
    assert [record.getMessage() for record in caplog.records] == [
        "eval_dataset: 1 row has near-identical responses (the same but for case, punctuation and spaces) (row 0); "
        "1 row has an exact duplicate earlier on (row 8)."
    ]
