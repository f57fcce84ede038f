"""Judgements of pairs and rankings made of them."""

import pytest

from hf_align.collators.rows import Side
from hf_align.errors import UserError
from hf_align.rewards import Judgement, judge_orders, rank_responses
from hf_align.rewards.judges import combine_orders


class Longer:
    """Prefers the longer response; has no opinion on empty ones."""

    name = "longer"

    def compare(self, prompts, firsts, seconds):
        return [
            Judgement(
                None if "" in (first, second) else (len(first) > len(second)) * 0.5 + (len(first) >= len(second)) * 0.5
            )
            for first, second in zip(firsts, seconds, strict=True)
        ]


@pytest.mark.parametrize("opinion", [1.0, 0.9, 0.0])
def test_a_judge_of_position_gives_ties_only(opinion: float):
    judgements = judge_orders(lambda prompts, *_: [opinion] * len(prompts), ["p", "q"], ["a", "bb"], ["cc", "d"])
    assert [judgement.preference for judgement in judgements] == [0.5, 0.5]
    assert all(judgement.flipped for judgement in judgements)


def test_a_preference_held_in_both_orders_is_their_mean():
    said: dict[tuple[Side, Side], float] = {("good", "bad"): 0.9, ("bad", "good"): 0.3}
    [judgement] = judge_orders(
        lambda prompts, left, right: [said[pair] for pair in zip(left, right, strict=True)], ["p"], ["good"], ["bad"]
    )
    assert judgement.preference == pytest.approx(0.8) and judgement.orders == pytest.approx((0.9, 0.7))
    assert judgement.label == 1.0 and not judgement.flipped


@pytest.mark.parametrize(
    ("forward", "backward", "preference"), [(0.5, 0.5, 0.5), (0.5, 1.0, 0.75), (1.0, 0.0, 0.5), (None, 1.0, None)]
)
def test_ties_soften_and_missing_opinions_spoil_a_judgement(forward, backward, preference):
    judgement = combine_orders(forward, backward)
    assert judgement.preference == preference and judgement.flipped == ((forward, backward) == (1.0, 0.0))


@pytest.mark.parametrize("said", [[0.5], [0.5, 1.5], [0.5, float("nan")], [0.5, "first"]])
def test_opinions_that_are_none_are_refused(said):
    with pytest.raises(UserError, match=r"opinions|a number from 0 to 1"):
        judge_orders(lambda prompts, left, right: said, ["p"], ["a"], ["b"])


def test_ranks_are_mean_preferences_over_the_other_responses():
    ranks = rank_responses(Longer(), ["p", "q", "r"], [["a", "bbb", "cc"], ["same", "same"], ["", "a", "b"]])
    assert ranks == [[0.0, 1.0, 0.5], [0.5, 0.5], [None, 0.5, 0.5]]
