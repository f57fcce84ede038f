"""What is broken inside a row: left out with a reason, or refused, when its layout isn't named."""

import random
from contextlib import suppress
from typing import Any

import pytest

from hf_align.data.layouts.conversion import convert_rows
from hf_align.errors import UserError
from tests.data.layouts.example import Example
from tests.data.layouts.examples import EXAMPLES

BROKEN: list[Any] = [None, "", " ", 3.5, True, [], [None], {}, {"a": 1}, [[]], ["x", 1], [{"role": "user"}]]


def convert_broken(example: Example, row: int, column: str, value: Any) -> None:
    """Recognise and convert the example's rows with one value replaced: no other error than the user's is raised."""
    rows = [dict(each) for each in example.rows]
    rows[row][column] = value
    with suppress(UserError):
        convert_rows(rows)


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
