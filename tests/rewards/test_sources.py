from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.rewards.sources import check_named_models, named_models


@pytest.mark.parametrize(
    ("reward", "names"),
    [
        ("a", ["a"]),
        ([(1.0, "a"), (0.5, len), (0.1, "b")], ["a", "b"]),
        (["a"], ["a"]),
        (len, []),
        ([len], []),
        ([], []),
        (None, []),
    ],
)
def test_names_are_those_of_models(reward: Any, names: list[str]) -> None:
    assert named_models(reward) == names


def test_a_reward_that_cannot_score_is_refused_before_it_is_loaded(tiny_model_dir: str) -> None:
    with pytest.raises(UserError, match="has no reward head and would score at random"):
        check_named_models([(1.0, len), (1.0, tiny_model_dir)])
    with pytest.raises(UserError, match=r"'\./none' doesn't exist"):
        check_named_models("./none")
    check_named_models(len)
