"""The prompts of a round."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.feedback import PreferenceStore, Response, Task
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.pools import apportion, choose_prompts, comparisons_by_domain, read_pool
from hf_align.feedback.records import Prompt

DOMAINS = ("code", "law", "food")
ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"Prompt {number}",
        "domain": DOMAINS[number % 3],
        "value": float(number % 10),
        "pool": "adversarial" if number % 4 == 0 else None,
        "origin": f"row {number}",
    }
    for number in range(200)
]
CONFIG = CollectionConfig(batch_size=50)


def contents(prompts: list[Prompt]) -> list[Any]:
    return [prompt.content for prompt in prompts]


def test_a_round_is_filled_by_the_shares() -> None:
    chosen = choose_prompts(read_pool(ROWS), CONFIG, round=0)
    assert chosen.counts == {"high_value": 20, "adversarial": 10, "under_represented": 15, "random": 5}
    assert Counter(prompt.pool for prompt in chosen.prompts) == chosen.counts
    assert not chosen.dry and len(set(contents(chosen.prompts))) == 50
    by_content = {row["prompt"]: row for row in ROWS}
    for prompt in chosen.prompts:
        row = by_content[prompt.content]
        assert prompt.domain == row["domain"] and prompt.columns == {"origin": row["origin"]}
        assert prompt.pool != "adversarial" or row["pool"] == "adversarial"
    # 200 prompts have 20 each of the values 0 to 9: the 20 with the highest are those of 9.
    high = [by_content[prompt.content]["value"] for prompt in chosen.prompts if prompt.pool == "high_value"]
    assert high == [9.0] * 20


def test_no_prompt_is_chosen_twice_until_all_were() -> None:
    rows = [{"prompt": f"Prompt {number}"} for number in range(23)]
    pool = read_pool([*rows, *rows[:4]])
    assert pool.repeated == 4
    used: list[str] = []
    sizes = []
    config = CollectionConfig(batch_size=10)
    for number in range(4):
        chosen = choose_prompts(pool, config, round=number, used=used).prompts
        used += [prompt.id for prompt in chosen]
        sizes.append(len(chosen))
    assert sizes == [10, 10, 3, 0]
    assert len(set(used)) == 23


def test_seed_and_round_decide_not_the_order_of_the_rows() -> None:
    pool = read_pool(ROWS)
    first = choose_prompts(pool, CONFIG, round=0).prompts
    assert choose_prompts(read_pool(ROWS[::-1]), CONFIG, round=0).prompts == first
    assert set(contents(choose_prompts(pool, CONFIG, round=1).prompts)) != set(contents(first))
    other = CollectionConfig(batch_size=50, seed=1)
    assert set(contents(choose_prompts(pool, other, round=0).prompts)) != set(contents(first))


def test_what_a_dry_pool_leaves_goes_to_the_others_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": f"Prompt {n}", "domain": "a", "adversarial": n < 4} for n in range(60)]
    pool = read_pool(rows)
    config = CollectionConfig(batch_size=20, pool_shares={"adversarial": 0.5, "under_represented": 0.3})
    chosen = choose_prompts(pool, config, round=0)
    # Of the 10 places of the dry pool 4 are filled; the 6 others are shared as .3 to .2.
    assert chosen.counts == {"adversarial": 4, "under_represented": 6 + 4, "random": 4 + 2}
    assert chosen.dry == {"adversarial": 6}
    assert caplog.messages == ["round 0: the pool 'adversarial' has no prompts left; places that go to others: 6."]
    choose_prompts(pool, config, round=1, used=[prompt.id for prompt in chosen.prompts])
    assert len(caplog.messages) == 1
    only = CollectionConfig(batch_size=20, pool_shares={"none of them": 1.0})
    assert choose_prompts(pool, only, round=0).counts == {"random": 20}
    assert caplog.messages[1:] == ["round 0: the pool 'none of them' has no prompts; places that go to others: 20."]


def test_domains_with_the_fewest_comparisons_come_first_and_are_brought_level() -> None:
    config = CollectionConfig(batch_size=10, pool_shares={"under_represented": 1.0})  # a prompt brings 6 pairs
    pool = read_pool(ROWS)
    chosen = choose_prompts(pool, config, round=0, comparisons={"code": 100, "law": 12, "food": 0})
    # 0 and 12 comparisons are level after 2 prompts of "food"; the 8 others go to both.
    assert Counter(prompt.domain for prompt in chosen.prompts) == {"food": 6, "law": 4}
    few = read_pool([{"prompt": "only one", "domain": "rare"}, *ROWS])
    chosen = choose_prompts(few, config, round=0, comparisons=dict.fromkeys(DOMAINS, 5))
    assert [prompt.domain for prompt in chosen.prompts].count("rare") == 1


def test_comparisons_are_counted_in_the_store_by_domain_without_gold() -> None:
    store = PreferenceStore("sqlite://")
    for number, (domain, gold) in enumerate([("code", None), ("code", None), ("law", None), ("law", "tie")]):
        prompt = Prompt(f"Prompt {number}", domain=domain)
        pair = [Response(prompt.id, text, "a") for text in ("yes", "no")]
        task = Task.of(*pair, gold_best=gold, domain=domain)
        store.add(prompts=[prompt], responses=pair, tasks=[task])
    assert comparisons_by_domain(store) == {"code": 2, "law": 1}


@pytest.mark.parametrize(
    ("values", "high"),
    [
        ([0.0, 1.0, 2.0, 3.0], {2.0, 3.0}),
        ([1.0, 1.0, 1.0, 0.0], {1.0}),
        ([0.0, 0.0, 0.0, 1.0], {1.0}),
        ([5.0, 5.0], set()),
    ],
)
def test_high_values_are_the_upper_half_but_never_the_lowest(values: list[float], high: set[float]) -> None:
    pool = read_pool([{"prompt": f"{number}", "priority": value} for number, value in enumerate(values)])
    fitting = {each.value for id, each in pool.prompts.items() if pool.fits(id, "high_value")}
    assert fitting == high


def test_places_are_apportioned_by_largest_remainders() -> None:
    assert apportion(100, {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}) == {"a": 40, "b": 30, "c": 20, "d": 10}
    assert apportion(7, {"a": 1.0, "b": 1.0, "c": 1.0}) == {"a": 3, "b": 2, "c": 2}
    assert apportion(1, {"a": 0.3, "b": 0.7}) == {"a": 0, "b": 1}


def test_prompts_of_other_layouts_are_read_and_classified_by_the_users_function() -> None:
    turns = [{"role": "user", "content": "Hello there."}, {"role": "assistant", "content": "Hi."}]
    pool = read_pool([{"messages": turns, "category": None}], lambda prompt: f"{len(prompt)} turn")
    (each,) = pool.prompts.values()
    assert each.prompt == Prompt(turns[:1], "random", "1 turn")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": " "}, "prompts: 1 row has an empty prompt"),
        ({"prompt": "a", "value": float("nan")}, "prompts: 1 row has a value that is NaN or infinite"),
        ({"prompt": "a", "pool": 3}, "prompts: 1 row has a pool that isn't text"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_reason(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_pool([row])


def test_a_classifier_that_names_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="classify must name the domain of a prompt; it returned None"):
        read_pool([{"prompt": "a"}], lambda prompt: None)  # type: ignore[arg-type, return-value]


def test_a_classifier_that_fails_is_told_with_the_prompt() -> None:
    with pytest.raises(UserError, match=r"^classify failed on prompt 'ab': ZeroDivisionError: division by zero$"):
        read_pool([{"prompt": "ab"}], lambda prompt: str(1 / 0))
