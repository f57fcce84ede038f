"""Rows that repeat or contradict others, against the trainers' check and a search by hand."""

import random
from typing import Any

import numpy as np
from datasets import Dataset

from hf_align.collators import find_bad_rows
from hf_align.collators.doubts import DUPLICATE, OPPOSITE
from hf_align.data.inspection.records import records_of
from hf_align.data.inspection.repeats import RowKeys, find_repeats


def repeats_of(rows: list[dict[str, Any]]) -> Any:
    keys = RowKeys()
    for records in records_of(Dataset.from_list(rows)):
        for record in records:
            keys.add(record)
    return find_repeats(keys)


def test_repeated_and_opposed_rows_are_those_that_trainers_warn_of() -> None:
    rng = random.Random(0)
    pairs = [
        {"prompt": rng.choice("pq"), "chosen": a, "rejected": b, "label": rng.choice([0.0, 0.2, 0.9])}
        for a, b in (rng.sample("abcde", 2) for _ in range(60))
    ]
    rankings = []
    for _ in range(60):
        responses = rng.sample("abcde", rng.choice([2, 3]))
        ranking = rng.choice([[0, 1, 1], [1, 0, 2], [0, None, None], [2, 1, 0]])[: len(responses)]
        if len(set(ranking)) > 1 and 0 in ranking and (1 in ranking or None in ranking):
            rankings.append({"prompt": rng.choice("pq"), "responses": responses, "ranking": ranking})
    for rows in (pairs, rankings):
        doubtful = find_bad_rows(rows).doubtful
        found = repeats_of(rows)
        repeated = np.union1d(found.copies, found.swapped).tolist()
        assert repeated == doubtful[DUPLICATE] and len(repeated) > 5
        assert found.opposite_earlier == len(doubtful[OPPOSITE]) > 5
        assert set(doubtful[OPPOSITE]) < set(found.opposed.tolist())


def test_copies_and_swapped_rows_come_with_the_rows_that_they_repeat() -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "label": 1.0},
        {"prompt": "p", "chosen": "c", "rejected": "d", "label": 1.0},
        {"prompt": "p", "chosen": "b", "rejected": "a", "label": 0.0},  # swapped
        {"prompt": "p", "chosen": "c", "rejected": "d", "label": 0.8},  # a copy
        {"prompt": "q", "chosen": "a", "rejected": "b", "label": 1.0},  # another prompt
        {"prompt": "p", "chosen": "e", "rejected": "f", "label": 0.5},
        {"prompt": "p", "chosen": "e", "rejected": "f", "label": 0.5},  # ties say the same, too
        {"prompt": "p", "chosen": "e", "rejected": "f", "label": 0.9},
    ]
    found = repeats_of(rows)
    assert (found.copies.tolist(), found.copied.tolist()) == ([3, 6], [1, 5])
    assert (found.swapped.tolist(), found.unswapped.tolist()) == ([2], [0])
    assert found.opposed.tolist() == [] and found.opposed_pairs == 0


def test_all_rows_of_a_contradicted_pair_are_listed_and_majorities_counted() -> None:
    def row(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    rows = [row("p", "a", "b"), row("p", "b", "a"), row("q", "a", "b"), row("p", "c", "d"), row("p", "d", "c")]
    found = repeats_of([*rows, row("p", "c", "d")])
    assert found.opposed.tolist() == [0, 1, 3, 4, 5]
    assert (found.opposed_pairs, found.clear_pairs, found.opposite_earlier) == (2, 1, 3)
    assert found.copies.tolist() == [5]


def test_a_ranking_repeats_what_earlier_rows_say_together() -> None:
    rows = [
        {"prompt": "p", "responses": ["a", "b", "c"], "ranking": [0, 1, 2]},
        {"prompt": "p", "responses": ["c", "b", "a"], "ranking": [2, 1, 0]},  # swapped
        {"prompt": "p", "responses": ["a", "c"], "ranking": [0, 1]},  # part of the first
        {"prompt": "p", "responses": ["a", "d"], "ranking": [0, 1]},
        {"prompt": "p", "responses": ["d", "b"], "ranking": [0, 1]},
        {"prompt": "p", "responses": ["a", "d", "b"], "ranking": [0, 1, 2]},  # 0, 3 and 4 together
        {"prompt": "p", "responses": ["d", "a", "c"], "ranking": [0, 1, 2]},  # d > a: opposes 3 and 5
    ]
    found = repeats_of(rows)
    assert (found.swapped.tolist(), found.unswapped.tolist()) == ([1], [0])
    assert (found.copies.tolist(), found.copied.tolist()) == ([2, 5], [0, 3, 4])
    assert found.opposed.tolist() == [3, 5, 6]


def test_no_rows_have_no_repeats() -> None:
    found = find_repeats(RowKeys())
    assert not len(found.copies) and not len(found.opposed)
