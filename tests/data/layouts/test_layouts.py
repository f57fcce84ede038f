"""What holds for every layout, shown on its examples."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from trl.data_utils import is_conversational, maybe_extract_prompt

from hf_align.collators.tools import to_dataset
from hf_align.data.json_files import json_rows
from hf_align.data.layouts.conversion import convert_rows
from hf_align.data.layouts.registry import LAYOUTS
from hf_align.data.sinks import write_rows
from hf_align.errors import UserError
from tests.data.layouts.example import Example
from tests.data.layouts.examples import EXAMPLES

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.layout)
ODD: tuple[Any, ...] = (None, "", "x", 3, float("nan"), True, [], [None], ["x"], {}, {"x": None})
"""Values that some column or part of one can't have."""


def test_every_layout_has_an_example_and_a_name_of_its_own() -> None:
    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names)
    assert {example.layout for example in EXAMPLES} == set(names)


@each_example
def test_an_example_is_recognised_and_converted(example: Example) -> None:
    conversion = convert_rows(to_dataset(example.rows))
    assert conversion.layout.name == example.layout
    assert conversion.rows.to_list() == to_dataset(example.made).to_list()
    assert (conversion.dropped, conversion.unusable) == (example.dropped, example.unusable)
    assert conversion.read == len(example.rows)


@each_example
def test_converting_saving_and_converting_again_changes_nothing(example: Example, tmp_path: Path) -> None:
    once = convert_rows(example.rows).rows
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    write_rows(once, lines)
    pq.write_table(once.data.table, table)
    for rows in (list(json_rows(lines, ".jsonl")), Dataset(pq.read_table(table))):
        again = convert_rows(rows)
        assert again.layout.name in ("pairs", "rankings")
        assert again.rows.to_list() == once.to_list()
        assert not again.dropped and not again.unusable


@each_example
def test_pairs_are_rows_that_trl_takes(example: Example) -> None:
    for row in convert_rows(example.rows, as_pairs=True, min_gap=0).rows.to_list():
        sides = maybe_extract_prompt({name: row[name] for name in ("prompt", "chosen", "rejected") if name in row})
        kinds = [is_conversational({name: sides[name]}) for name in ("prompt", "chosen", "rejected")]
        assert len(set(kinds)) == 1 and all(sides.values())


@each_example
def test_no_value_of_a_row_is_more_than_a_row_left_out(example: Example) -> None:
    odd = [{**example.rows[0], name: value} for name in example.rows[0] for value in ODD]
    odd += [
        {**example.rows[0], name: swapped} for name, value in example.rows[0].items() for swapped in _swapped(value)
    ]
    with suppress(UserError):  # values that pass unread may be of several types
        conversion = convert_rows([*example.rows, *odd], layout=example.layout)
        assert conversion.layout.whole or len(conversion.rows) >= len(example.made)


def _swapped(value: Any) -> list[Any]:
    """The value with one of its parts replaced, at each depth."""
    if isinstance(value, list) and value:
        return [[part, *value[1:]] for part in (*ODD, *_swapped(value[0]))]
    if isinstance(value, dict):
        return [{**value, key: part} for key in value for part in (*ODD, *_swapped(value[key]))]
    return []
