"""Halves, principles and pairs that are drawn."""

from __future__ import annotations

from collections import Counter

from hf_align.feedback import Prompt
from hf_align.feedback.constitution.draws import draw_pairs, draw_principles, split_halves
from tests.feedback.constitution.samples import CODE, CONSTITUTION, KIND, SHORT, TRUE

PROMPTS = [Prompt(f"Question {n}?", domain="other") for n in range(2000)]


def test_a_prompt_stays_in_its_half_whatever_other_prompts_there_are() -> None:
    first, second = split_halves(PROMPTS, 0.3, seed=0)
    assert {each.id for each in first}.isdisjoint(each.id for each in second)
    assert 500 < len(first) < 700
    again, _ = split_halves(PROMPTS[::-2], 0.3, seed=0)
    assert {each.id for each in again} == {each.id for each in first} & {each.id for each in PROMPTS[::-2]}
    assert {each.id for each in split_halves(PROMPTS, 0.3, seed=1)[0]} != {each.id for each in first}
    assert split_halves(PROMPTS, 1, seed=0)[1] == [] and split_halves(PROMPTS, 0, seed=0)[0] == []


def test_principles_are_drawn_by_weight_without_repetition() -> None:
    drawn = [draw_principles((KIND, TRUE, SHORT), prompt, 2, 0, "revision") for prompt in PROMPTS]
    first = Counter(each[0].id for each in drawn)
    # Weights 2, 1, 1: first with 1/2, 1/4, 1/4; three standard deviations of a share of 2,000 draws are .034.
    assert abs(first["kind"] / 2000 - 0.5) < 0.034 and abs(first["true"] / 2000 - 0.25) < 0.034
    # What comes after true is kind with 2/3 (of about 500: three standard deviations are .063).
    after = Counter(each[1].id for each in drawn if each[0].id == "true")
    assert abs(after["kind"] / first["true"] - 2 / 3) < 0.07
    assert all(len({principle.id for principle in each}) == 2 for each in drawn)


def test_the_order_of_principles_does_not_depend_on_the_others() -> None:
    for prompt in PROMPTS[:50]:
        all_three = draw_principles((KIND, TRUE, SHORT), prompt, 3, 0, "vote")
        assert draw_principles((SHORT, KIND), prompt, 2, 0, "vote") == [each for each in all_three if each != TRUE]
    ways = ((0, "a"), (0, "b"), (1, "a"))
    drawn = [[draw_principles((KIND, TRUE), each, 1, *way) for each in PROMPTS[:50]] for way in ways]
    assert drawn[0] != drawn[1] and drawn[0] != drawn[2]


def test_principles_of_other_domains_are_not_drawn() -> None:
    principles = CONSTITUTION.principles
    assert draw_principles(principles, PROMPTS[0], None, 0, "vote") == [KIND, TRUE, SHORT]
    assert CODE in draw_principles(principles, Prompt("Sort a list.", domain="code"), 4, 0, "vote")


def test_pairs_and_their_sides_depend_on_the_responses_alone() -> None:
    prompt = PROMPTS[0]
    pairs = draw_pairs(["a", "b", "c"], prompt, 2, seed=0)
    assert pairs == draw_pairs(["c", "a", "b", "a"], prompt, 2, seed=0) and len(pairs) == 2
    sides = [draw_pairs(["a", "b"], each, 1, seed=0)[0] for each in PROMPTS]
    assert abs(Counter(sides)["a", "b"] / 2000 - 0.5) < 0.034
