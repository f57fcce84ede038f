"""Options of a collection are checked one by one and against each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.feedback.collection.config import CollectionConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number of at least 1."),
        ({"gold_share": 1.0}, "gold_share is 1.0; it must be at least 0 and below 1."),
        ({"selection": "best"}, "selection is 'best'; it must be 'random', 'disagreement' or 'information'."),
        ({"pool_shares": {"high_value": 0.7, "code": 0.5}}, "pool_shares add up to 1.2; they must not exceed 1."),
        ({"pool_shares": {"code": -0.1}}, "pool_shares of 'code' is -0.1; give a share from 0 to 1."),
        ({"pool_shares": {"code": True}}, "pool_shares of 'code' is True; give a share from 0 to 1."),
        (
            {"pool_shares": {"random": 0.1}},
            "pool_shares names the pool 'random'; name others, which leave the rest to chance.",
        ),
        ({"pool_shares": [0.4]}, "pool_shares is [0.4]; give a mapping from names of pools to shares."),
        ({"temperatures": ()}, "temperatures is (); give a list of at least one number above 0."),
        ({"temperatures": (0.7, 0)}, "temperatures has 0; give numbers above 0."),
        (
            {"min_responses": 5},
            "min_responses is 5, above responses_per_prompt, which is 4; "
            "raise responses_per_prompt or lower min_responses.",
        ),
        (
            {"responses_per_prompt": 14},
            "max_pairs is 6, too few to have each of 14 responses in a pair; give at least 7.",
        ),
        (
            {"min_seconds": 400},
            "min_seconds is 400, above max_seconds, which is 300.0; raise max_seconds or lower min_seconds.",
        ),
    ],
)
def test_an_invalid_option_is_named_with_what_it_must_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        CollectionConfig(**fields)
    assert str(caught.value) == message


def test_what_the_pools_leave_is_random_and_shares_may_use_all() -> None:
    assert CollectionConfig().random_share == pytest.approx(0.1)
    assert CollectionConfig(pool_shares={"a": 0.1, "b": 0.2, "c": 0.7}).random_share == pytest.approx(0, abs=1e-12)
    assert CollectionConfig(pool_shares={}).random_share == 1


def test_lists_of_a_recipe_become_the_configs_own_values() -> None:
    shares = {"code": 0.5}
    config = CollectionConfig(temperatures=[1, 0.5], pool_shares=shares)  # type: ignore[arg-type]
    shares["code"] = 2.0
    assert config.temperatures == (1.0, 0.5)
    assert config.pool_shares == {"code": 0.5}


def test_every_option_has_help() -> None:
    assert all(field.metadata["help"] for field in dataclasses.fields(CollectionConfig))
