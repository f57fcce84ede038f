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


@pytest.mark.parametrize("band", [-1, float("nan"), float("inf"), True, "wide"])
def test_a_band_that_is_no_number_from_0_is_refused(band):
    with pytest.raises(UserError, match=f"tie_band is {band!r}; give a number from 0"):
        RewardJudge(brevity, tie_band=band)


def test_each_response_to_a_prompt_is_scored_once_however_many_it_is_compared_with():
    asked: list[tuple[str, str]] = []

    def noted(prompts, responses):
        asked.extend(zip(prompts, responses, strict=True))
        return brevity(prompts, responses)

    pairs = ["p", "p", "p", "q"], ["a", "a", "bb", "a"], ["bb", "ccc", "ccc", "a"]
    judgements = RewardJudge(noted, tie_band=0).compare(*pairs)
    assert [judgement.preference for judgement in judgements] == [1.0, 1.0, 1.0, 0.5]
    assert asked == [("p", "a"), ("p", "bb"), ("p", "ccc"), ("q", "a")]
