"""What is broken inside a row: left out with a reason, or refused, when its layout isn't named."""

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from hf_align.data.layouts.conversion import convert_rows
from hf_align.data.layouts.layout import problem_of
from hf_align.errors import UserError
from tests.data.layouts.example import Example
from tests.data.layouts.examples import EXAMPLES

BROKEN: list[Any] = [None, "", " ", 3.5, True, [], [None], {}, {"a": 1}, [[]], ["x", 1], [{"role": "user"}]]


def convert_broken(example: Example, row: int, column: str, value: Any) -> None:
    """Recognise and convert the example's rows with one value replaced: what is wrong is told in words of data."""
    rows = [dict(each) for each in example.rows]
    rows[row][column] = value
    try:
        told = str(convert_rows(rows))
    except UserError as error:
        told = str(error)
    assert not re.search(r"\w+Error\b|NoneType|object has|indices|subscript|iterable|unpack|<class", told), told


@pytest.mark.parametrize(("number", "example"), enumerate(EXAMPLES), ids=[example.layout for example in EXAMPLES])
def test_a_broken_value_is_left_out_or_refused(number: int, example: Example) -> None:
    generator = random.Random(number)
    for _ in range(3):
        row = generator.randrange(len(example.rows))
        convert_broken(example, row, generator.choice(list(example.rows[row])), generator.choice(BROKEN))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=[example.layout for example in EXAMPLES])
def test_every_broken_value_is_left_out_or_refused(example: Example) -> None:
    for row, columns in enumerate(example.rows):
        for column in columns:
            for value in BROKEN:
                convert_broken(example, row, column, value)


def test_errors_of_python_become_words_of_data() -> None:
    def told(read: Callable[[], Any]) -> str:
        with pytest.raises(Exception) as raised:
            read()
        return problem_of(raised.value)

    nothing: Any = None
    text: Any = "x"
    fit = "values that don't fit the layout"
    assert told(lambda: nothing.get("a")) == f"{fit} (null in place of a mapping)"
    assert told(lambda: nothing.strip()) == f"{fit} (null in place of text)"
    assert told(lambda: text.items()) == f"{fit} (text in place of a mapping)"
    assert told(lambda: {}["a"]) == f"{fit} ('a' is missing)"
    assert told(lambda: [][0]) == f"{fit} (a list is too short)"
    assert told(lambda: float("x")) == told(lambda: len(nothing)) == f"{fit} (one is of another type or form)"
