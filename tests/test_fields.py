from __future__ import annotations

import dataclasses
import sys
from typing import Any, Literal

import pytest

from hf_align.errors import UserError
from hf_align.fields import allowed_values, check_fields


def field(default: Any, interval: str | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"range": interval} if interval else {})


@dataclasses.dataclass
class Foreign:
    mode: Literal["theirs"] = "theirs"


@dataclasses.dataclass
class Config(Foreign):
    layout: Literal["auto", "branch"] = "auto"
    estimator: Literal["k1", "k2"] | None = None
    beta: float = field(0.1, "(0, inf)")
    smoothing: float = field(0.0, "[0, 0.5)")
    share: float | None = field(None, "(0, 1]")
    gamma: float = field(1.0, "[0, 1]")
    count: int = field(1, "[1, inf)")


Config.__module__ = "hf_align.of_this_test"
sys.modules["hf_align.of_this_test"] = sys.modules[__name__]  # where its hints are looked up


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("layout", "rows", "'auto' or 'branch'"),
        ("layout", None, "'auto' or 'branch'"),
        ("estimator", "k4", "'k1' or 'k2' or None"),
        ("beta", 0.0, "above 0"),
        ("beta", float("nan"), "above 0"),
        ("beta", float("inf"), "above 0"),
        ("smoothing", 0.5, "at least 0 and below 0.5"),
        ("share", 0, "above 0 and at most 1 or None"),
        ("gamma", 1.01, "between 0 and 1"),
        ("gamma", True, "between 0 and 1"),
        ("count", 0, "a whole number of at least 1"),
        ("count", 1.5, "a whole number of at least 1"),
    ],
)
def test_a_value_outside_of_hint_or_range_is_named_with_what_it_must_be(name: str, value: Any, needed: str) -> None:
    with pytest.raises(UserError, match=rf"^{name} is .*; it must be {needed}\.$"):
        check_fields(Config(**{name: value}))


def test_ends_that_belong_to_the_range_and_foreign_fields_pass() -> None:
    check_fields(Config(smoothing=0, share=1, gamma=0, count=1, estimator="k2", mode="ours"))  # type: ignore[arg-type]


def test_fields_that_may_be_anything_have_no_words() -> None:
    assert allowed_values(dataclasses.fields(Foreign)[0], str) == ""
