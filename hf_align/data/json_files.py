"""Rows of .json and .jsonl files with their values as they stand, and what is wrong in which line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_align.data.row_files import FileProblem, check_start, numbered_lines

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # perhaps of a character that is written as two


def json_rows(path: Path, suffix: str) -> Iterator[dict[str, Any]]:
    """Rows of a .jsonl or .json file (or .gz of it), with the values as they stand.

    A .jsonl file has one object a line, blank lines aside; a .json file a list of objects, the same lines, or one
    object with a list of values for each column.

    Args:
        path: The file.
        suffix: ".jsonl", ".json" or one of these with ".gz"; the path's own may be missing.

    Raises:
        FileProblem: It isn't UTF-8, a line is no JSON object, an object has a key twice, a .json file is neither of the
            two, or there are no rows.
    """
    check_start(path, suffix)
    lines = numbered_lines(path, suffix)
    if suffix.startswith((".jsonl", ".ndjson")):
        rows: Iterable[dict[str, Any]] = (_object(line, number) for number, line in lines if line.strip())
    else:
        rows = _objects("".join(line for _, line in lines))
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise FileProblem("it has no rows")


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line, object_pairs_hook=_once)
    except FileProblem as problem:
        raise FileProblem(f"line {number} {problem}") from None
    except (ValueError, RecursionError):
        if number == 1 and line.lstrip().startswith("["):
            raise FileProblem("it is one JSON list, not one object a line; name it .json") from None
        if number == 1 and line.strip() == "{":
            raise FileProblem("line 1 is only the start of a JSON object; write each row in one line") from None
        raise FileProblem(f"line {number} is not a JSON object; fix or drop it") from None
    if number == 1 and isinstance(value, list) and all(isinstance(each, dict) for each in value):
        raise FileProblem("it is one JSON list, not one object a line; name it .json")
    if not isinstance(value, dict):
        raise FileProblem(f"line {number} is not a JSON object; fix or drop it")
    if _has_half(line, value):
        raise FileProblem(f"line {number} holds half a character (a lone surrogate); save it as UTF-8")
    return value


def _has_half(text: str, value: Any) -> bool:
    """Whether a text of the value that was read from `text` is none that UTF-8 can hold."""
    if not _HALF.search(text):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FileProblem(f"has the key {twice!r} twice in one object")
    return values


def _objects(text: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except FileProblem as problem:
        raise FileProblem(f"it {problem}") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[: error.pos].lstrip().startswith("{"):
            return [_object(line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        where = "is cut off" if cut else "is not JSON"
        raise FileProblem(f"line {error.lineno} {where}: {error.msg}") from None
    except RecursionError:
        raise FileProblem("it is nested too deeply") from None
    if _has_half(text, value):
        raise FileProblem("it holds half a character (a lone surrogate); save it as UTF-8")
    lists = list(value.values()) if isinstance(value, Mapping) else []
    if len(lists) > 1 and all(isinstance(each, list) for each in lists) and not all(map(_is_messages, lists)):
        return _of_columns(value)
    if isinstance(value, Mapping) and (names := [name for name, each in value.items() if _is_rows(each)]):
        raise FileProblem(f"it is one JSON object whose rows are under {names[0]!r}; save that list alone")
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise FileProblem("it is one JSON value, not a list of rows")
    for number, row in enumerate(value):
        if not isinstance(row, dict):
            raise FileProblem(f"row {number} of its list is not an object")
    return value


def _of_columns(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in list(lengths.items())[:3])
        raise FileProblem(f"its columns have different numbers of values ({shown})")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _is_rows(value: Any) -> bool:
    dicts = isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
    return dicts and not _is_messages(value)


def _is_messages(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(each, dict) and {"role", "from"} & set(each) for each in value)
