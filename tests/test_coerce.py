import enum
from typing import Any, Literal

import pytest

from hf_align.coerce import coerce


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, float, 3.0),
        (3, int, 3),
        (True, bool, True),
        (None, str | None, None),
        (12, str | None, "12"),
        ("no", Color | str, "no"),
        ("red", Color, "red"),
        ("b", Literal["a", "b"], "b"),
        ([1, 2.5], list[float], [1.0, 2.5]),
        ([1, 2.5], tuple[float, ...], (1.0, 2.5)),
        ("q_proj", str | list[str] | None, "q_proj"),
        (["q", "v"], str | list[str] | None, ["q", "v"]),
        ({"a": 1}, dict[str, Any] | str | None, {"a": 1}),
        ([1, "x"], Any, [1, "x"]),
    ],
)
def test_values_that_fit(value: Any, hint: Any, expected: Any) -> None:
    result = coerce(value, hint)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("fast", float, "a number"),
        (1.5, int, "a whole number"),
        (True, float, "a number"),
        (1, bool, "true or false"),
        (None, int, "a whole number"),
        ([1], str | None, "text or null"),
        ("c", Literal["a", "b"], "'a' or 'b'"),
        ("blue", Color, "red"),
        ([1, "x"], list[int], "a list (of a whole number)"),
        ([1, "x"], tuple[int, ...], "a list (of a whole number)"),
        ("x", list[int] | None, "a list (of a whole number) or null"),
    ],
)
def test_values_that_do_not_fit(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        coerce(value, hint)
    assert str(caught.value) == message
