import math
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Json, List, Value

from hf_align.data.exact import encoded, features_of

LONG = 2**53 + 1
COLUMNS: list[tuple[list[Any], Any]] = [
    (["2024-01-31", None, "7"], Value("string")),
    ([None, None], Value("null")),
    ([True, None, False], Value("bool")),
    ([1, None, -(2**63)], Value("int64")),
    ([1, 2.5], Value("float64")),
    ([[1, 2], [], None], List(Value("int64"))),
    ([{"a": "x", "b": None}, {"a": "y", "b": 1}], {"a": Value("string"), "b": Value("int64")}),
    ([True, 1], Json()),
    (["7", 7, "null", None, '"x"'], Json()),
    ([LONG, 2.5], Json()),
    ([1, 2**63], Json()),
    ([[1, 2.5]], Json()),
    ([[[1]], [["x"]]], Json()),
    ([{}, {}], Json()),
    ([{"a": 1}, {"b": 1}], Json()),
    ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], Json()),
    ([[{"role": "user"}, {"role": "tool", "calls": [{"x": 3}]}]], Json()),
    ([{"a": [{"b": "\u2028\U0001f600"}, 2]}], Json()),
]


@pytest.mark.parametrize(("values", "feature"), COLUMNS)
def test_values_come_back_from_the_disk_as_they_are(values: list[Any], feature: Any, tmp_path: Path) -> None:
    rows = [{"column": value, "n": n} for n, value in enumerate(values)]
    features = features_of(rows)
    assert features["column"] == feature
    stored = Dataset.from_generator(lambda: encoded(rows, features), features=features, cache_dir=str(tmp_path))
    assert repr(stored["column"][:]) == repr([float(v) if feature == Value("float64") else v for v in values])
    again = stored.map(lambda row: {"m": row["n"]}).select(range(len(rows)))  # JSON isn't read twice
    assert repr(again["column"][:]) == repr(stored["column"][:])


def test_a_column_that_some_rows_lack_is_null_there() -> None:
    rows = [{"a": 1}, {"b": "x"}]
    features = features_of(rows)
    assert list(encoded(rows, features)) == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_numbers_that_json_has_no_names_for() -> None:
    rows = [{"a": [math.inf, 1]}, {"a": "x"}]
    features = features_of(rows)
    stored = Dataset.from_list(list(encoded(rows, features)), features=features)
    assert stored["a"][:] == [[math.inf, 1], "x"]
