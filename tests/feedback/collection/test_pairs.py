"""Pairs: all of few, a covering sample of many."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hf_align.feedback import Prompt, Response
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.pairs import make_pairs

PROMPT = Prompt("Name a fruit.", domain="food")


def responses(sources: str) -> list[Response]:
    return [Response(PROMPT.id, f"Fruit {number}.", source) for number, source in enumerate(sources)]


@pytest.mark.parametrize(("count", "pairs"), [(0, 0), (1, 0), (2, 1), (3, 3)])
def test_up_to_three_responses_give_all_their_pairs(count: int, pairs: int) -> None:
    tasks = make_pairs(PROMPT, responses("aab"[:count]), CollectionConfig(annotators_per_task=5))
    assert len({task.id for task in tasks}) == pairs
    assert all((task.strategy, task.wanted, task.domain) == ("all", 5, "food") for task in tasks)


def test_four_responses_of_one_source_against_one_of_another_come_first() -> None:
    given = responses("aaab")
    tasks = make_pairs(PROMPT, given, CollectionConfig())
    assert len(tasks) == 6 and {task.strategy for task in tasks} == {"all"}
    other = given[3].id
    assert [other in (task.first_id, task.second_id) for task in tasks] == [True] * 3 + [False] * 3


def test_a_sample_has_different_sources_first_and_covers_every_response() -> None:
    rng = random.Random(0)
    for _ in range(100):
        given = responses("".join(rng.choice("abc") for _ in range(rng.randint(4, 12))))
        most = rng.randint(-(-len(given) // 2), 8)
        config = CollectionConfig(max_pairs=most, responses_per_prompt=len(given), seed=rng.randint(0, 9))
        tasks = make_pairs(PROMPT, given, config)
        source = {each.id: each.source for each in given}
        uses = Counter(id for task in tasks for id in (task.first_id, task.second_id))
        assert len({task.id for task in tasks}) == len(tasks) == min(most, len(given) * (len(given) - 1) // 2)
        assert set(uses) == set(source), "every response is covered"
        mixed = [source[task.first_id] != source[task.second_id] for task in tasks]
        if {task.strategy for task in tasks} != {"all"}:
            assert [task.strategy for task in tasks] == ["sources" if each else "one_source" for each in mixed]
        # A pair of one source is there only to cover its responses, or when no other pair is left.
        counts = Counter(source.values())
        possible = (len(given) ** 2 - sum(n * n for n in counts.values())) // 2
        for place, is_mixed in enumerate(mixed):
            before = {id for task in tasks[:place] for id in (task.first_id, task.second_id)}
            covers = {tasks[place].first_id, tasks[place].second_id} - before
            assert is_mixed or covers or sum(mixed[:place]) == possible


def test_the_sample_hangs_on_seed_and_prompt_not_on_the_order_of_the_responses() -> None:
    given = responses("aaabbbcc")
    config = CollectionConfig(responses_per_prompt=8)
    first = make_pairs(PROMPT, given, config)
    assert make_pairs(PROMPT, given[::-1], config) == first
    assert make_pairs(PROMPT, given, CollectionConfig(responses_per_prompt=8, seed=1)) != first


def test_responses_are_used_about_equally_often() -> None:
    tasks = make_pairs(PROMPT, responses("abababab"), CollectionConfig(responses_per_prompt=8, max_pairs=8))
    uses = Counter(id for task in tasks for id in (task.first_id, task.second_id))
    assert set(uses.values()) == {2}
