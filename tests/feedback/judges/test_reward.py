"""Rewards as judges."""

import pytest

from hf_align.errors import UserError
from hf_align.feedback import RewardJudge


def brevity(prompts, responses):
    return [-float(len(response)) for response in responses]


def test_scores_become_probabilities_or_sides_with_a_band_of_ties():
    pairs = ["p", "p"], ["abc", "abc"], ["abcd", "abcdefgh"]
    assert [j.preference for j in RewardJudge(brevity).compare(*pairs)] == pytest.approx([0.731059, 0.993307], abs=1e-6)
    assert [j.preference for j in RewardJudge(brevity, tie_band=1).compare(*pairs)] == [0.5, 1.0]
    assert RewardJudge(brevity).compare([], [], []) == [] and RewardJudge(brevity).name == "brevity"


def test_a_negative_band_is_refused():
    with pytest.raises(UserError, match="tie_band is -1"):
        RewardJudge(brevity, tie_band=-1)
