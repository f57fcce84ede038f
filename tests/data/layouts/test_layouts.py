"""What holds for every layout, shown on its examples."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from trl.data_utils import is_conversational, maybe_extract_prompt

from hf_align.collators.tools import to_dataset
from hf_align.data.layouts.conversion import convert_rows
from hf_align.data.layouts.registry import LAYOUTS
from hf_align.data.row_files import json_rows
from hf_align.data.sinks import write_rows
from tests.data.layouts.example import Example
from tests.data.layouts.examples import EXAMPLES

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.layout)


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
    for rows in (json_rows(lines), Dataset(pq.read_table(table))):
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
