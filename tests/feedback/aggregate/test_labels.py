"""Answers as triples, dicts and columns, and what is refused among them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from hf_align.errors import UserError
from hf_align.feedback import majority_vote

ROWS = [("t", "a", "x"), ("t", "b", "y"), ("u", "a", "y")]


@pytest.mark.parametrize(
    "answers",
    [
        [dict(zip(("task", "annotator", "label"), row, strict=True)) for row in ROWS],
        dict(zip(("task", "annotator", "label"), map(list, zip(*ROWS, strict=True)), strict=True)),
        pd.DataFrame(ROWS, columns=pd.Index(["task", "annotator", "label"])),
        Dataset.from_list([dict(zip(("task", "annotator", "label"), row, strict=True)) for row in ROWS]),
        iter(ROWS),
    ],
    ids=["dicts", "columns", "frame", "dataset", "iterator"],
)
def test_every_layout_of_answers_says_the_same(answers):
    assert majority_vote(answers) == majority_vote(ROWS)


@pytest.mark.parametrize("labels", [(True, False), (1, 2), ((1, "a"), (2, "b")), ("x", 3), (frozenset("a"), "b")])
def test_labels_are_of_any_hashable_type(labels):
    result = majority_vote([("t", "a", labels[0]), ("t", "b", labels[0]), ("t", "c", labels[1])])
    assert result.labels["t"] == labels[0] and type(result.labels["t"]) is type(labels[0])


def test_numpy_values_are_taken_as_pythons():
    result = majority_vote([(np.int64(1), np.str_("a"), np.bool_(True))])
    assert [type(part) for part in (*result.labels, *result.skills, result.labels[1])] == [int, str, bool]


@pytest.mark.parametrize("missing", [None, math.nan, np.float64("nan"), pd.NA, pd.NaT])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_missing_values_are_refused_in_one_sentence(missing, place):
    task, annotator, label = (missing if n == place else value for n, value in enumerate(("t", "a", "x")))
    with pytest.raises(UserError, match=r"answer 1.*(task|annotator|label) is .*: leave out answers without one"):
        majority_vote([("t", "a", "x"), (task, annotator, label)])


@pytest.mark.parametrize(
    ("answers", "gold", "message"),
    [
        ([("t", "a", True), ("t", "b", 1)], None, "labels mix booleans and numbers"),
        ([("t", "a", True)], {"t": 0}, "labels mix booleans and numbers"),
        ([("t", "a", [1])], None, r"label is the list \[1\], which isn't hashable"),
        ([("t", "a")], None, "answer 0 is .* give a triple"),
        (["tax"], None, "answer 0 is 'tax': give a triple"),
        ([{"task": "t", "label": 1}], None, "answer 0 has no 'annotator'"),
        ({"task": ["t"], "label": [1]}, None, "answers have no column 'annotator'"),
        ({"task": ["t"], "annotator": [], "label": [1]}, None, "differ in length"),
        ([], None, "answers are empty"),
        ([("t", "a", 1)], {"t": None}, "gold of task 't' is None"),
    ],
)
def test_bad_answers_are_refused(answers, gold, message):
    with pytest.raises(UserError, match=message):
        majority_vote(answers, gold)
