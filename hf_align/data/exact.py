"""Data sets that hold rows' values as they stand.

Arrow gives all values of a column one type: a text like "2024-01-31" becomes a time where a library guesses, a key of
one row becomes null in the others, and beside 2.5 a 3 inside a list becomes 3.0. Columns that would change are stored
as JSON, which `datasets` reads back when they are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from datasets import Features, Json, List, Value

Row = Mapping[str, Any]
MIXED = "mixed"
_SCALARS = {bool: "bool", int: "int64", float: "float64", str: "string"}
_EXACT = 2**53  # integers up to here are floats, too; longer ones are "long" below
_NUMBERS = {"int64", "float64"}


def features_of(rows: Iterable[Row]) -> Features:
    """Types of the columns in which rows keep their values.

    A column of integers and floats is one of floats. Anything else that is not of one type throughout, such as dicts
    with other keys, is JSON.

    Args:
        rows: Rows of JSON's types, read once.

    Example:
        >>> from hf_align.data.exact import features_of
        >>> features_of([{"a": "2024-01-31", "b": 1}, {"a": None, "b": 2.5, "c": [1, "x"]}])
        {'a': Value('string'), 'b': Value('float64'), 'c': Json(decode=True)}
    """
    types: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            before = types.get(name)
            if before == MIXED or (before == "string" and isinstance(value, str)):
                continue
            kind = _type(value)
            numbers = isinstance(before, str) and isinstance(kind, str) and {before, kind} == _NUMBERS
            types[name] = "float64" if numbers else _merged(before, kind)
    return Features({name: _feature(each) for name, each in types.items()})


def encoded(rows: Iterable[Row], features: Features) -> Iterator[dict[str, Any]]:
    """Rows as `features_of` wants them written, with every column."""
    as_json = {name for name, feature in features.items() if isinstance(feature, Json)}
    for row in rows:
        yield {
            name: json.dumps(value, ensure_ascii=False) if name in as_json and value is not None else value
            for name, value in ((name, row.get(name)) for name in features)
        }


def _type(value: Any) -> Any:
    """A value's type: None, a name, a list of one, pairs of key and type; "mixed" if Arrow would change the value."""
    if value is None:
        return None
    if isinstance(value, list):
        inner = None
        for each in value:
            inner = _merged(inner, _type(each))
        return MIXED if inner == MIXED else [inner]
    if isinstance(value, dict):
        fields = tuple((key, _type(each)) for key, each in value.items())
        return MIXED if not fields or any(each == MIXED for _, each in fields) else fields
    if isinstance(value, int) and abs(value) > _EXACT:
        return "long" if -(2**63) <= value < 2**63 else MIXED
    return _SCALARS[type(value)]


def _merged(one: Any, other: Any) -> Any:
    if one is None or one == other:
        return other
    if other is None:
        return one
    if {"int64", "long"} == {str(one), str(other)}:
        return "long"
    if isinstance(one, list) and isinstance(other, list):
        inner = _merged(one[0], other[0])
        return MIXED if inner == MIXED else [inner]
    if isinstance(one, tuple) and isinstance(other, tuple) and [key for key, _ in one] == [key for key, _ in other]:
        fields = tuple((key, _merged(a, b)) for (key, a), (_, b) in zip(one, other, strict=True))
        return MIXED if any(each == MIXED for _, each in fields) else fields
    return MIXED


def _feature(kind: Any) -> Any:
    if isinstance(kind, list):
        return List(_feature(kind[0]))
    if isinstance(kind, tuple):
        return {key: _feature(each) for key, each in kind}
    return Json() if kind == MIXED else Value("int64" if kind == "long" else kind or "null")
