"""Prompts and pairs of rounds, counted by hand."""

import pytest
from transformers import AutoTokenizer

from hf_align.collators import encode_prompts, tokenize_preferences
from hf_align.collators.rows import Side
from hf_align.experiments.improvement.pairs import (
    Judged,
    Pair,
    anchors_of,
    different,
    make_pairs,
    prompts_of_round,
    training_rows,
)

USER, PREFILL = {"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "Sure: "}
THREE = Judged(4, ["a", "b", "c"], [0.5, 1.0, 0.0])


def counted(judged: Judged, mode: str) -> tuple[list[tuple[str, str, float]], dict[str, int]]:
    pairs, counts = make_pairs([judged], mode)  # type: ignore[arg-type]
    return [(pair.chosen, pair.rejected, pair.margin) for pair in pairs], {k: v for k, v in counts.items() if v}


def test_the_best_response_stands_against_the_worst_and_the_margin_is_their_difference() -> None:
    assert counted(THREE, "best") == ([("b", "c", 1.0)], {"pairs": 1})


def test_all_pairs_with_different_scores_are_made_and_equal_ones_counted_as_ties() -> None:
    pairs, counts = counted(Judged(0, ["a", "b", "c"], [0.25, 1.0, 0.25]), "all")
    assert pairs == [("b", "a", 0.75), ("b", "c", 0.75)] and counts == {"pairs": 2, "ties": 1}


@pytest.mark.parametrize("mode", ["best", "all"])
def test_what_makes_no_pair_is_counted(mode: str) -> None:
    assert counted(Judged(0, ["a"], [0.5]), mode) == ([], {"alike": 1})
    assert counted(Judged(0, ["a", "b"], [0.5, 0.5]), mode) == ([], {"ties": 1})
    assert counted(Judged(0, ["a", "b"], [None, None]), mode) == ([], {"no_opinion": 1})
    assert counted(Judged(0, ["a", "b", "c"], [1.0, None, 0.0]), mode)[0] == [("a", "c", 1.0)]


def test_an_anchor_is_only_ever_rejected() -> None:
    def beside(scores: list[float | None]) -> Judged:
        return Judged(0, ["a", "b", "old"], scores, anchored=True)

    assert counted(beside([0.5, 1.0, 0.0]), "best") == ([("b", "old", 1.0)], {"pairs": 1, "anchored": 1})
    assert counted(beside([0.75, 0.25, 0.5]), "all") == (
        [("a", "old", 0.25)],
        {"pairs": 1, "anchored": 1, "anchor_not_beaten": 1},
    )
    assert counted(beside([0.0, 0.5, 1.0]), "best") == ([], {"anchor_not_beaten": 1})
    assert counted(beside([0.5, 0.0, 0.5]), "best") == ([], {"ties": 1})
    assert counted(beside([0.5, 0.5, None]), "best") == ([], {"no_opinion": 1})


def test_texts_are_judged_once_without_empty_ones_and_the_anchor_stands_last() -> None:
    assert different(["b", " ", "a", "b"]) == ["b", "a"]
    assert different(["b", "old", "a"], "old") == ["b", "a", "old"]


def test_the_anchor_of_a_prompt_is_the_rejected_of_its_widest_pair() -> None:
    pairs = [Pair(3, "a", "b", 0.2, False), Pair(3, "a", "c", 0.9, False), Pair(5, "x", "y", 0.1, False)]
    assert anchors_of(pairs) == {3: "c", 5: "y"}


def test_rounds_take_slices_of_one_order_until_all_prompts_were_taken() -> None:
    rounds = [prompts_of_round(number, 10, 4, [], 0.5, seed=1) for number in (1, 2, 3)]
    assert all(not each.anchored and len(each.fresh) == 4 for each in rounds)
    order = [row for each in rounds for row in each.fresh]
    assert sorted(order[:10]) == list(range(10)) and order[10:] == order[:2]
    assert rounds == [prompts_of_round(number, 10, 4, [], 0.5, seed=1) for number in (1, 2, 3)]
    assert order != [row for n in (1, 2, 3) for row in prompts_of_round(n, 10, 4, [], 0.5, seed=2).fresh]


@pytest.mark.parametrize(("share", "places"), [(0.0, 0), (0.5, 3), (1.0, 4)])
def test_a_share_of_the_places_goes_to_prompts_with_an_anchor(share: float, places: int) -> None:
    chosen = prompts_of_round(2, 8, 6, [1, 2, 5, 7], share, seed=0)
    assert len(chosen.anchored) == places and set(chosen.anchored) <= {1, 2, 5, 7}
    assert len(chosen.fresh) == 6 - places and not set(chosen.fresh) & set(chosen.anchored)


def test_training_rows_hold_the_prompt_both_responses_and_the_options_of_the_template() -> None:
    [row] = training_rows([Pair(1, "good", "bad", 0.5, True)], ["p", "q"], [{}, {"tools": [1]}])
    assert row == {
        **{"prompt": "q", "chosen": "good", "rejected": "bad", "margin": 0.5, "anchored": True},
        "tools": [1],
    }


@pytest.mark.parametrize("prompt", ["Name a prime. Sure: ", [USER], [USER, PREFILL]])
def test_training_reads_the_very_tokens_that_were_sampled_to_each_kind_of_prompt(prompt: Side, base_dir: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_dir)
    [row] = training_rows([Pair(0, "seven", "nine", 1.0, False)], [prompt], [{}])
    encoded = tokenize_preferences([row], tokenizer)
    [sampled_from] = encode_prompts(tokenizer, [prompt])
    assert encoded[0]["prompt_ids"] == sampled_from
    for ids, text in zip(encoded[0]["response_ids"], ("seven", "nine"), strict=True):
        assert tokenizer.decode(ids) == f"{text}<|im_end|>"
