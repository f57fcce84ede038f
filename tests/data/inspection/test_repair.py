"""Drops and changes of several findings compose, and the log says what happened to each row."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from datasets import Dataset

from hf_align.data.inspection.findings import Finding, Kind
from hf_align.data.inspection.repair import log_of, merged, repaired

ENCODING = Kind("broken_encoding", "defects", "error", "Repair it.")
BOS = Kind("double_bos", "defects", "error", "Strip it.")
DUPLICATE = Kind("duplicate_pair", "duplicates", "warning", "Drop all but the first.")


def rows() -> Dataset:
    return Dataset.from_list([{"prompt": f"p{n}", "chosen": f"<s>cafÃ© {n}", "rejected": "b"} for n in range(6)])


FINDINGS: list[Finding] = [
    ENCODING.found([1, 3], "m", changes={1: {"chosen": "<s>café 1"}, 3: {"chosen": "<s>café 3", "rejected": "c"}}),
    BOS.found([1, 5], "m", changes={1: {"chosen": "cafÃ© 1"}, 5: {"chosen": "cafÃ© 5"}}),
    DUPLICATE.found(array("q", [3, 4]), "m", drop=array("q", [4])),
    ENCODING.found([4], "m", changes={4: {"chosen": "x"}}),
]


def test_rows_that_any_finding_drops_are_left_out_and_changes_are_merged() -> None:
    fixed = repaired(rows(), FINDINGS)
    chosen = ["<s>cafÃ© 0", "café 1", "<s>cafÃ© 2", "<s>café 3", "cafÃ© 5"]
    assert fixed["chosen"][:] == chosen and fixed["prompt"][:] == ["p0", "p1", "p2", "p3", "p5"]
    assert fixed["rejected"][:] == ["b", "b", "b", "c", "b"] and fixed.features == rows().features
    assert repaired(rows(), []).to_list() == rows().to_list()
    assert repaired(rows(), FINDINGS[2:3])["prompt"][:] == ["p0", "p1", "p2", "p3", "p5"]


def test_the_log_has_every_row_that_was_touched_with_all_its_kinds() -> None:
    log = list(log_of(rows(), FINDINGS))
    assert [(entry["row"], entry["action"], entry["kinds"]) for entry in log] == [
        (1, "changed", ["broken_encoding", "double_bos"]),
        (3, "changed", ["broken_encoding"]),
        (4, "dropped", ["duplicate_pair"]),
        (5, "changed", ["double_bos"]),
    ]
    assert log[0]["old"] == {"chosen": "<s>cafÃ© 1"} and log[0]["new"] == {"chosen": "café 1"}
    assert log[2]["old"] == rows()[4] and log[2]["new"] is None


MESSAGE = {"role": "user", "content": "<s>cafÃ©"}


@pytest.mark.parametrize(
    ("old", "one", "other", "both"),
    [
        ("abc", "abc", "xbc", "xbc"),
        ("abc", "xbc", "abc", "xbc"),
        ("abc def", "Abc def", "abc deF", "Abc deF"),
        ("abc def", "", "abc deF", ""),  # both touch the end: the first one counts
        ("aXb", "aYb", "aZb", "aYb"),
        (1, 2, 3, 2),
        (
            [MESSAGE],
            [MESSAGE | {"content": "cafÃ©"}],
            [MESSAGE | {"content": "<s>café"}],
            [MESSAGE | {"content": "café"}],
        ),
        ([1, 2], [1], [1, 3], [1]),
    ],
)
def test_two_changes_of_a_value_are_merged_where_they_are_apart(old: Any, one: Any, other: Any, both: Any) -> None:
    assert merged(old, one, other) == both
