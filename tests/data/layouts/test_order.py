"""Neither the order of rows nor that of columns decides what a layout is and what becomes of it."""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from hf_align.data.layouts.conversion import convert_rows
from tests.data.layouts.example import Example
from tests.data.layouts.examples import EXAMPLES

_LAST_COUNTS = "earlier votes of the same annotator on the same pair"


def _content(row: Mapping[str, Any]) -> str:
    """A row as text that is the same for every order of its columns, its responses or its votes."""
    sizes = {len(row[name]) for name in ("responses", "votes", "annotators") if isinstance(row.get(name), list)}
    lists = {name: row[name] for name in sorted(row) if isinstance(row[name], list) and len(row[name]) in sizes}
    lists = {name: value for name, value in lists.items() if name not in ("prompt", "chosen", "rejected")}
    parts = {size: [value for value in lists.values() if len(value) == size] for size in sizes}
    together = [sorted(json.dumps(each) for each in zip(*lists, strict=True)) for lists in parts.values()]
    rest = {name: row[name] for name in row if name not in lists and row[name] is not None}
    rest |= {name: sorted(rest[name]) for name in ("chosen_ratings", "rejected_ratings") if name in rest}
    return json.dumps([rest, sorted(lists), together], sort_keys=True)


def _shuffled(example: Example, seed: int) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    names = list(dict.fromkeys(name for row in example.rows for name in row))
    generator.shuffle(names)
    rows = [{name: row.get(name) for name in names} for row in example.rows]
    generator.shuffle(rows)
    return rows


ANY_ORDER = [example for example in EXAMPLES if _LAST_COUNTS not in example.dropped]


@pytest.mark.parametrize(("number", "example"), enumerate(ANY_ORDER), ids=[example.layout for example in ANY_ORDER])
def test_rows_and_columns_in_any_order_become_the_same_rows(number: int, example: Example) -> None:
    conversion = convert_rows(_shuffled(example, seed=number))
    assert conversion.layout.name == example.layout
    assert sorted(map(_content, conversion.rows.to_list())) == sorted(map(_content, example.made))
    assert conversion.dropped == example.dropped
    counts = {problem: len(numbers) for problem, numbers in conversion.unusable.items()}
    assert counts == {problem: len(numbers) for problem, numbers in example.unusable.items()}
