"""Of rows that say the same the best one stays, and the order of rows decides nothing."""

from __future__ import annotations

import random

import pytest

from hf_align.data.sft.selection import exact_key, first_of_each, near_repeats, over_limit
from hf_align.data.shingles import jaccard, shingles


def similarity(a: str, b: str) -> float:
    return jaccard(shingles(a), shingles(b))


LONG = "A quiet film about two brothers who repair an old boat and learn to talk to each other again"


def test_texts_are_equal_but_for_case_and_white_space() -> None:
    keys = [exact_key(text) for text in ("A joy.", "a  JOY.\n", "A joy", "\uff21 joy.")]
    assert first_of_each(keys) == {1: 0, 3: 0}


def test_of_near_repeats_the_best_stays_then_the_longest() -> None:
    texts = [LONG, LONG.replace("old", "big"), f"{LONG} and sail", "Something else entirely happens in this one"]
    assert min(similarity(a, b) for a in texts[:3] for b in texts[:3]) > 0.7
    assert near_repeats(texts, [0.6, 0.9, 0.6, 0.6], 0.7) == {0: 1, 2: 1}
    assert near_repeats(texts, [0.6] * 4, 0.7) == {0: 2, 1: 2}


def test_no_row_is_dropped_for_one_that_it_is_not_near_to() -> None:
    words = LONG.split()
    chain = [" ".join(words[start : start + 10]) for start in range(9)]  # each near the next, not the one after
    dropped = near_repeats(chain, [1.0] * 9, 0.7)
    assert dropped and all(similarity(chain[number], chain[kept]) >= 0.7 for number, kept in dropped.items())
    kept = [text for number, text in enumerate(chain) if number not in dropped]
    assert all(similarity(a, b) < 0.7 for a in kept for b in kept if a != b)
    for seed in range(5):
        order = random.Random(seed).sample(range(9), 9)
        again = near_repeats([chain[number] for number in order], [1.0] * 9, 0.7)
        assert {order[number] for number in again} == set(dropped)


def test_texts_with_other_numbers_are_not_near() -> None:
    tasks = [
        f"A train drives {km} km in two hours at the same speed. How fast is it? It drives {km // 2} km/h."
        for km in (90, 120)
    ]
    assert similarity(*tasks) > 0.7 and near_repeats(tasks, [1.0, 1.0], 0.7) == {}


@pytest.mark.parametrize(
    ("most", "ratio", "left"), [(3, None, [3, 2, 1]), (None, 2.0, [2, 2, 1]), (None, None, [1, 1, 1])]
)
def test_a_category_has_at_most_a_number_or_a_multiple_of_the_smallest(
    most: int | None, ratio: float | None, left: list[int]
) -> None:
    categories = ["a"] * 7 + ["b"] * 2 + ["c"]
    texts = [f"text {number}" for number in range(10)]
    dropped = over_limit(categories, texts, most, ratio, seed=0)
    assert [sum(c == name for n, c in enumerate(categories) if n not in dropped) for name in "abc"] == left
    order = random.Random(0).sample(range(10), 10)
    again = over_limit([categories[n] for n in order], [texts[n] for n in order], most, ratio, seed=0)
    assert {order[number] for number in again} == set(dropped)
    others = {frozenset(over_limit(categories, texts, most, ratio, seed=seed)) for seed in range(9)}
    assert len(others) > 1
