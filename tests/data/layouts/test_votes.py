"""Votes in words, and several votes on a pair."""

import random

import pytest

from hf_align.data.layouts.layout import Tally
from hf_align.data.layouts.votes import BOTH_BAD, SKIPPED, TIE, Vote, gather, verdict_of

WORDS = {
    1.0: ["A", "a", " model_a ", "Response A", "left", "leftvote", "Option 1", "A is better", "A>B", "A >> B", "b<a"],
    0.0: ["B", "MODEL_B", "answer b", "Right", "rightvote", "second", "B is much better", "B>A", "A<<B"],
    TIE: ["tie", "Tie", "tievote", "draw", "A=B", "equal", "both", "no preference", "both good"],
    BOTH_BAD: ["tie (bothbad)", "both_bad", "bothbad_vote", "Both are bad", "neither is better"],
    SKIPPED: ["", " ", None, "skip", "unsure", "N/A"],
    None: [
        "green",
        "A and B",
        "ab",
        1,
        0.5,
        True,
        ["A"],
        "better",
        "A is better in both",
        "preference for A",
        "A is worse",
    ],
}


@pytest.mark.parametrize(("word", "verdict"), [(word, verdict) for verdict in WORDS for word in WORDS[verdict]])
def test_a_vote_in_words_of_any_case_names_a_response_or_a_tie_or_is_not_understood(word, verdict) -> None:
    assert verdict_of(word) == verdict


def test_neither_the_order_of_the_responses_nor_that_of_the_votes_changes_the_row_of_a_pair() -> None:
    votes = [("ann", "x", "y", 1.0), ("ben", "y", "x", 0.0), ("cas", "x", "y", 0.0), ("dee", "y", "x", TIE)]
    for seed in range(6):
        shuffled = random.Random(seed).sample(votes, len(votes))
        (row,) = gather([Vote("p", a, b, verdict, name) for name, a, b, verdict in shuffled], Tally())
        assert (row["chosen"], row["rejected"]) == ("x", "y")
        by_name = dict(zip(row["annotators"], row["votes"], strict=True))
        assert by_name == {"ann": 1.0, "ben": 1.0, "cas": 0.0, "dee": 0.5}


def test_an_even_split_is_a_tie_that_is_counted_or_kept_in_both_orders_with_the_votes_of_each() -> None:
    votes = [Vote("p", "x", "y", 1.0, "ann"), Vote("p", "x", "y", 0.0, "ben"), Vote("p", "x", "y", BOTH_BAD, "cas")]
    dropping = Tally()
    assert list(gather(votes, dropping)) == [] and dropping.dropped == {"ties": 1}
    both = list(gather(votes, Tally(ties="keep")))
    assert [(row["chosen"], row["weight"], row["votes"]) for row in both] == [
        ("x", 0.5, [1.0, 0.0, 0.5]),
        ("y", 0.5, [0.0, 1.0, 0.5]),
    ]


def test_columns_that_differ_between_the_votes_on_a_pair_become_lists_in_every_row() -> None:
    votes = [
        Vote("p", "x", "y", 1.0, "ann", {"seconds": 3, "topic": "t"}),
        Vote("p", "x", "y", 1.0, "ben", {"seconds": 4, "topic": "t"}),
        Vote("q", "x", "y", 1.0, "ann", {"seconds": 5, "topic": "u"}),
    ]
    rows = list(gather(votes, Tally()))
    assert [(row["seconds"], row["topic"]) for row in rows] == [([3, 4], "t"), ([5], "u")]
