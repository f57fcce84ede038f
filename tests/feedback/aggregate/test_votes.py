"""Majority and weighted vote."""

from __future__ import annotations

import pytest

from hf_align.errors import UserError
from hf_align.feedback import majority_vote, weighted_vote

ANSWERS = [("t", "a", "x"), ("t", "b", "y"), ("t", "c", "y"), ("u", "a", "x"), ("u", "b", "z")]


def test_majority_gives_shares_and_the_first_of_equal_labels():
    result = majority_vote(ANSWERS)
    assert result.probabilities["t"] == pytest.approx({"x": 1 / 3, "y": 2 / 3, "z": 0.0})
    assert result.labels == {"t": "y", "u": "x"}
    assert result.answers == {"a": 2, "b": 2, "c": 1}
    assert result.priors == pytest.approx({"x": 5 / 12, "y": 1 / 3, "z": 1 / 4})


def test_gold_is_taken_as_it_is_and_measures_skills():
    result = majority_vote(ANSWERS, {"t": "x", "u": "x", "v": "z"})
    assert result.labels == {"t": "x", "u": "x", "v": "z"}
    assert result.confusion["a"]["x"] == {"x": 1.0, "y": 0.0, "z": 0.0}
    assert result.confusion["b"]["x"] == {"x": 0.0, "y": 0.5, "z": 0.5}


def test_weights_are_shares_of_the_vote():
    result = weighted_vote(ANSWERS, {"a": 3.0, "b": 1.0, "c": 0.0})
    assert result.probabilities["t"] == pytest.approx({"x": 0.75, "y": 0.25, "z": 0.0})
    assert weighted_vote(ANSWERS, {"a": 1, "b": 1, "c": 1}).probabilities == majority_vote(ANSWERS).probabilities
    nobody = weighted_vote(ANSWERS, {"a": 0.0, "b": 0.0, "c": 0.0})
    assert nobody.probabilities["t"] == pytest.approx(dict.fromkeys("xyz", 1 / 3))


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 1.0, "b": -1.0, "c": 1.0}, {"a": 1, "b": float("nan"), "c": 1}])
def test_weights_must_be_there_and_not_negative(weights):
    with pytest.raises(UserError, match="weight of annotator 'b'"):
        weighted_vote(ANSWERS, weights)
