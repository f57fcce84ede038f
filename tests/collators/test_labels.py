"""Soft labels of pairs, and labels of auxiliary tasks."""

import pytest

from hf_align.collators import PreferenceCollator, check_preferences, find_bad_rows, tokenize_preferences
from hf_align.collators.judged import read_judged
from hf_align.collators.labels import read_label, read_tasks
from hf_align.collators.rows import RowProblem
from hf_align.errors import UserError

PAIR = {"prompt": "The film was", "chosen": " good", "rejected": " bad"}


@pytest.mark.parametrize(
    ("columns", "label", "votes"),
    [
        ({}, None, None),
        ({"label": 0.25}, 0.25, None),
        ({"preference": 0}, 0.0, None),
        ({"votes": [1, 0, 0.5, 1]}, 0.625, [1, 0, 0.5, 1]),
        ({"votes": [1, 0], "label": 0.5, "preference": 0.5}, 0.5, [1, 0]),
        ({"label": None, "preference": 1}, 1.0, None),
    ],
)
def test_the_label_is_the_first_response_s_share_of_votes(columns, label, votes):
    assert read_label(columns) == (label, votes)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"label": 1.5}, "a label that is no number between 0 and 1"),
        ({"label": True}, "a label that is no number between 0 and 1"),
        ({"preference": "first"}, "a preference that is no number between 0 and 1"),
        ({"votes": []}, "votes that are no list of at least one"),
        ({"votes": [1, 0.7]}, "a vote that is not 0, 0.5 or 1"),
        ({"label": 0.5, "votes": [1, 1]}, "label and votes that contradict each other"),
        ({"label": 0.5, "preference": 1}, "label and preference that contradict each other"),
        ({"label": None}, "no label"),
    ],
)
def test_a_label_that_can_t_be_one_is_refused(columns, problem):
    with pytest.raises(RowProblem, match=problem):
        read_judged(PAIR | columns, {})


def test_rows_with_bad_labels_are_named():
    rows = [PAIR | {"label": 0.5, "votes": votes} for votes in ([1, 0], [1, 1])]
    assert find_bad_rows(rows).bad == {"label and votes that contradict each other": [1]}


def test_plain_pairs_leave_labels_unread_and_say_so(tokenizer, caplog):
    row = PAIR | {"label": "spam"}
    check_preferences([row], plain=True)
    assert "train_dataset: label isn't read here: of every pair chosen counts as better." in caplog.text
    assert "label" not in tokenize_preferences([row], tokenizer, plain=True).column_names
    with pytest.raises(UserError, match="1 row has a label that is no number between 0 and 1"):
        check_preferences([row])


def test_a_label_below_a_half_turns_the_preference_and_a_half_has_none():
    turned = {"prompt": "The film was", "chosen": " bad", "rejected": " good"}
    rows = [PAIR | {"label": 1}, turned | {"label": 0.2}, turned | {"label": 0.5}, turned | {"label": 0.9}]
    assert find_bad_rows(rows).doubtful == {
        "an exact duplicate earlier on": [1],
        "the opposite preference earlier on": [3],
    }


def test_soft_labels_and_votes_travel_to_the_batch_in_the_row_s_order(tokenizer):
    rows = [PAIR | {"votes": [0, 0, 1, 0.5], "margin": 2.0}, PAIR | {"votes": [1], "margin": 1.0}]
    made = tokenize_preferences(rows, tokenizer)
    assert made[0]["response_ids"] == tokenize_preferences([PAIR], tokenizer)[0]["response_ids"]
    batch = PreferenceCollator(pad_token_id=0)(made.to_list())
    assert batch["label"].tolist() == [0.375, 1.0] and batch["margin"].tolist() == [2, 1]
    numbered = [row | {"index": number} for number, row in enumerate(made.to_list())]
    assert PreferenceCollator(pad_token_id=0, draws=True)(numbered)["votes"] == [(0, [0, 0, 1, 0.5]), (1, [1])]


def test_task_labels_stand_under_their_name_or_by_side():
    tasks = {"helpful": "regression", "safe": "binary", "kind": 3}
    row = {"helpful": [1.5, None], "chosen_safe": True, "rejected_safe": 0.25, "kind": None}
    read = read_tasks(row, tasks, 2)
    assert read["helpful"][0] == 1.5 and read["safe"] == [1.0, 0.25]
    assert str(read["helpful"][1]) == "nan" and str(read["kind"]) == "[nan, nan]"
    for name, labels, problem in (
        ("helpful", ["a", 1], "a label of helpful that is not a number"),
        ("safe", [2, 1], "a label of safe that is not between 0 and 1"),
        ("kind", [3, 1], "a label of kind that is no whole number from 0 to 2"),
        ("kind", [1, 2, 0], "a kind that is no list with one label for each response"),
    ):
        with pytest.raises(RowProblem, match=problem):
            read_tasks({name: labels}, tasks, 2)
