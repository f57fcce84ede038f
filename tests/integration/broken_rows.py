"""Generated rows of all layouts, some with broken values, and generated files of them, some damaged."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.data.layouts.examples import EXAMPLES

Row = dict[str, Any]
File = tuple[str, bytes]
"""A file's name, perhaps in folders, and its content."""

# ---- values


ODD_TEXTS = (
    *("", " ", "\n", "None", "NA", "null", "007", "True", "2024-01-31", "12345678901234567890123", "nan", "1e999"),
    *("<|im_end|>", "<|endoftext|>", "\u200b", "\ufeff", "\ufffd", "\u2028", "\x07", "\ud83d", "a\0b"),
    *("👩\u200d👩\u200d👧", "e\u0301", "🇩🇪", "a\tb", "a\rb", 'say "x"', '"', "'", "\\", "\\ud83d", "\\N"),
    *("{{ 7 * 7 }}", "{% raw %}", "=1+1", "x" * 3000, "long " * 40_000, "[1, 2]", '{"a": 1}', "[", "{"),
)
TEXTS = st.sampled_from(ODD_TEXTS)
NUMBERS = st.sampled_from(
    [0, -1, 1, 3, 0.5, -0.0, math.nan, math.inf, -math.inf, 1e39, -1e39, 1e308, 5e-324, 2**63, 10**40, 2**53 + 1]
)
BAD = st.one_of(
    st.none(),
    st.booleans(),
    TEXTS,
    NUMBERS,
    st.sampled_from(
        [[], {}, [None], [[]], [{}], ["x"], {"role": "user"}, [{"role": "x", "content": "y"}], [1, "a", None]]
    ),
    st.sampled_from([[{"role": "user", "content": None}], [{"role": None, "content": "hm"}], [{"role": "user"}]]),
    st.just([{"role": "user", "content": [{"type": "text", "text": "hm"}, {"type": "image"}]}]),
    st.just([{"from": "alien", "value": "hm"}]),
    st.text(max_size=6),
)
JUDGED = ("margin", "weight", "label", "preference", "votes", "ranking", "scores", "ratings", "score", "rating")
"""Columns whose numbers training reads."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values inside a row."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from places(each, (*path, number))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a value with another value at a path; a new `KeyError` takes the key away."""
    if not path:
        return new
    first, *rest = path
    if isinstance(value, dict):
        if not rest and new is KeyError:
            return {key: each for key, each in value.items() if key != first}
        return {key: changed(each, tuple(rest), new) if key == first else each for key, each in value.items()}
    if not rest and new is KeyError:
        return [each for number, each in enumerate(value) if number != first]
    return [changed(each, tuple(rest), new) if number == first else each for number, each in enumerate(value)]


def marked(value: Any, mark: str) -> Any:
    """The value with a mark behind each of its longer texts, by which a trained row is known again."""
    if isinstance(value, str):
        return value + mark if len(value) > 3 and " " in value else value
    if isinstance(value, list):
        return [marked(each, mark) for each in value]
    return {key: marked(each, mark) for key, each in value.items()} if isinstance(value, dict) else value


# ---- rows


PAIR: Row = {"prompt": "Name a gem.", "chosen": " An opal.", "rejected": " A glue."}
RESPONSES: Row = {"prompt": "Name a gem.", "responses": ["An opal.", "A jade.", "A glue."]}
USER, ASSISTANT = {"role": "user", "content": "Name a gem."}, {"role": "assistant", "content": "An opal."}
MESSAGES: Row = {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "A glue."}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PAIRS: list[list[Row]] = [
    [PAIR],
    [PAIR | {"margin": 1.5, "weight": 1.0}],
    [PAIR | {"label": 0.8}],
    [PAIR | {"preference": 0.8}],
    [{"chosen": "Name a gem: an opal.", "rejected": "Name a gem: a glue."}],
    [MESSAGES | {"tools": [TOOL]}],
    [RESPONSES | {"scores": [3.0, 2.0, 0.5]}],
    [RESPONSES | {"ranking": [0, 1, 2], "weight": 0.5}],
    [RESPONSES | {"ratings": [[3, 4], [2], [1, 1]]}],
]
DEMONSTRATIONS: list[list[Row]] = [
    [{"prompt": "Name a gem.", "completion": " An opal."}],
    [{"messages": [USER, ASSISTANT]}],
    [{"text": "An opal is a gem."}],
]
PROMPTS: list[list[Row]] = [[{"prompt": "Name a gem."}], [{"prompt": [USER]}], [{"prompt": "Name a gem.", "target": 1}]]
LAYOUTS: list[list[Row]] = [list(map(dict, example.rows)) for example in EXAMPLES]


@st.composite
def broken_rows(draw: st.DrawFn, layouts: Sequence[Sequence[Row]]) -> list[Row]:
    """Rows of a layout, or of two, each marked by its number, some of them with one or two broken values."""
    base = draw(st.sampled_from(layouts))
    if draw(st.integers(0, 11)) == 0:
        base = [*base[:1], *draw(st.sampled_from(layouts))[:2]]
    rows = [marked(base[number % len(base)], f" [row {number}]") for number in range(draw(st.integers(1, 6)))]
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        number = draw(st.integers(0, len(rows) - 1))
        if not (paths := list(places(rows[number]))):
            continue
        judged = [path for path in paths if path[0] in JUDGED]
        path = draw(st.sampled_from(judged if judged and draw(st.booleans()) else paths))
        new = draw(NUMBERS if path in judged and draw(st.booleans()) else st.one_of(BAD, st.just(KeyError)))
        rows[number] = changed(rows[number], path, new)
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(["prompt_ids", "response_ids", "label", "", "chosen ", "input_ids", "weight"]))
        rows = [{**row, name: draw(st.sampled_from([1, None, [1], "x"]))} for row in rows]
    return rows


# ---- files


SUFFIXES = (".jsonl", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz")


def as_bytes(rows: list[Row], suffix: str) -> bytes:
    """A file of the rows; tables hold JSON where they can't hold a value."""
    if suffix.endswith(".gz"):
        return gzip.compress(as_bytes(rows, suffix.removesuffix(".gz")), mtime=0)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if suffix == ".parquet":
        arrays = []
        for name in columns:
            values = [row.get(name) for row in rows]
            try:
                arrays.append(pa.array(values))
            except (pa.ArrowException, OverflowError, UnicodeEncodeError):
                arrays.append(pa.array([json.dumps(value) for value in values]))
        file = io.BytesIO()
        pq.write_table(pa.Table.from_arrays(arrays, names=columns), file)
        return file.getvalue()
    if suffix in (".csv", ".tsv"):
        separator = "," if suffix == ".csv" else "\t"
        cells = [[_cell(row.get(name)) for name in columns] for row in rows]
        return "\n".join(separator.join(line) for line in [columns, *cells]).encode("utf-8", "surrogatepass")
    lines = [json.dumps(row) for row in rows]
    return (f"[{', '.join(lines)}]" if suffix == ".json" else "\n".join(lines)).encode()


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\t\n\r]', text) else text


DAMAGES = (
    *("cut", "nul", "latin-1", "bom", "utf-16", "utf-32", "blank", "twice", "quote", "junk", "empty", "crlf", "cr"),
    *("zip", "tail", "same column", "deep", "spaces", "number", "html", "dots"),
)


def damaged(content: bytes, kind: str, place: int) -> bytes:
    """A file's content with one defect."""
    at = place % (len(content) + 1)
    name = re.search(rb'"?(\w+)"?', content)
    return {
        "cut": content[:at],
        "nul": content[:at] + b"\0" + content[at:],
        "latin-1": content[:at] + "é".encode("latin-1") + content[at:],
        "bom": b"\xef\xbb\xbf" + content,
        "utf-16": content.decode("utf-8", "replace").encode("utf-16"),
        "utf-32": content.decode("utf-8", "replace").encode("utf-32"),
        "blank": content.replace(b"\n", b"\n\n  \n"),
        "twice": content + b"\n" + content,
        "quote": content.replace(b'"', b"", 1),
        "junk": content[:at] + bytes(range(128, 140)) + content[at:],
        "empty": b"",
        "crlf": content.replace(b"\n", b"\r\n"),
        "cr": content.replace(b"\n", b"\r"),
        "zip": b"PK\x03\x04" + content,
        "tail": content + b"\n\x00\x01trailing",
        "same column": re.sub(rb'"(chosen|responses|completion|text)": ', b'"prompt": ', content)
        if b'"' in content
        else re.sub(rb"\b(chosen|completion|text)\b", b"prompt", content, count=1),
        "deep": content[:at] + b"[" * 100_000,
        "spaces": b" " * 70_000 + content,
        "number": b"17",
        "html": b"<!DOCTYPE html>\n" + content,
        "dots": content + b"\n..." if name else b"...",
    }[kind]


@st.composite
def one_file(draw: st.DrawFn, layouts: Sequence[Sequence[Row]], suffix: str) -> bytes:
    """The content of a file."""
    try:
        content = as_bytes(draw(broken_rows(layouts)), suffix)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        content = b""
    if draw(st.integers(0, 4)) == 0:
        content = damaged(content, draw(st.sampled_from(DAMAGES)), draw(st.integers(0, 10_000)))
    return content


@st.composite
def files(draw: st.DrawFn, layouts: Sequence[Sequence[Row]]) -> list[File]:
    """One file, or a folder of several."""
    suffix = draw(st.sampled_from(SUFFIXES))
    name = draw(st.sampled_from(["rows", "rows", "data/train-0", "split/test"]))
    made = [(name + suffix, draw(one_file(layouts, suffix)))]
    if "/" in name and draw(st.booleans()):
        other = draw(st.sampled_from([suffix, suffix, ".jsonl", ".txt"]))
        second = draw(st.sampled_from(["train-1", "test", "validation", "README"]))
        made.append((f"{name.partition('/')[0]}/{second}{other}", draw(one_file(layouts, suffix))))
    return made
