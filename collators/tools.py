"""Tools and tool calls in the form that chat templates expect, whatever Arrow and JSON did to them.

Arrow gives all rows of a column the same keys and number types: a key of one row becomes null in the others, and next
to a 2.5 a 3 becomes 3.0. A template would write that into the prompt.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from datasets import Dataset

from hf_align.collators.rows import Message, RowProblem, without_nulls

NESTED = ("tools", "chat_template_kwargs")
"""Columns of any content for the chat template."""
CONVERSATIONS = ("prompt", "chosen", "rejected", "messages", "completion")
COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
"""Keywords of JSON Schema with integer values."""
VALUES = {"default", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
"""Keywords with integer values if the type is integer."""
LISTS = {"enum", "examples"}
"""Keywords that list values of the type."""


def to_dataset(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """Rows as a data set that preserves their tools and tool calls.

    Values that Arrow would pad or convert become JSON text, which `template_options` and `template_messages` read.

    Raises:
        TypeError or ValueError: Arrow's error if a column has values of several types.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))  # Arrow only takes the first row's keys

    def convert(rows: Sequence[Mapping[str, Any]]) -> Dataset:
        return Dataset.from_list([{key: row.get(key) for key in columns} for row in rows])

    nested = [name for name in NESTED if name in columns]
    sides = [name for name in CONVERSATIONS if any(any(_calls(row.get(name))) for row in rows)]
    if not nested and not sides:
        return convert(rows)

    def preserves(data: Dataset) -> bool:
        as_given = (_same(data[name][:], [row.get(name) for row in rows]) for name in nested)
        calls = (_same([_calls(v) for v in data[name]], [_calls(row.get(name)) for row in rows]) for name in sides)
        return all(as_given) and all(calls)

    with suppress(TypeError, ValueError):  # types that differ within tools, perhaps
        if preserves(data := convert(rows)):
            return data
    return convert([{key: _as_json(key, value) for key, value in row.items()} for row in rows])


def template_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns for the chat template that a row has, as they stand."""
    return {name: row[name] for name in NESTED if row.get(name) is not None}


def template_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's `tools` and `chat_template_kwargs`, ready for `apply_chat_template`.

    Raises:
        RowProblem: They are text that isn't JSON of a list and a dict.
    """
    tools = _read(row, "tools", list)
    if tools is not None:
        tools = [_whole_numbers(_parsed(tool)) for tool in tools]
    return {"tools": tools or None, **(_read(row, "chat_template_kwargs", dict) or {})}


def template_messages(messages: Sequence[Message], tools: Sequence[Any] | None, *, as_text: bool) -> list[Message]:
    """Messages with the arguments of their tool calls as dicts, or as JSON text for templates that expect it.

    Arguments given as JSON text, as in OpenAI's interface, are parsed once: a template that writes JSON would quote
    them again. Numbers that a tool declares as integers become integers.
    """
    schemas = {function.get("name"): function.get("parameters") for function in map(_function, tools or ())}

    def arguments(function: dict[str, Any]) -> Any:
        value = _parsed(function["arguments"])
        value = _of_kind(value, schemas.get(function.get("name")))
        return value if not as_text or isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def call(given: Any) -> Any:
        function = _function(given)
        if "arguments" not in function:
            return given
        written = {**function, "arguments": arguments(function)}
        return {**given, "function": written} if "function" in given else written

    def read(message: Message) -> Message:
        calls = _parsed(message.get("tool_calls"))
        return {**message, "tool_calls": list(map(call, calls))} if isinstance(calls, list) else message

    return [read(without_nulls(message)) for message in messages]


def _function(tool: Any) -> dict[str, Any]:
    """The part of a tool or call with name and arguments, with or without a wrapping {"function": ...}."""
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    return inner if isinstance(inner, dict) else {}


def _parsed(value: Any) -> Any:
    """The value of JSON text if it is a dict or a list; anything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        return value
    return read if isinstance(read, dict | list) else value


def _read(row: Mapping[str, Any], name: str, kind: type) -> Any:
    value = row.get(name)
    if not isinstance(value, str):
        return without_nulls(value)
    try:
        read = json.loads(value) if value else None
    except json.JSONDecodeError as error:
        raise RowProblem(f"{name} that are neither a {kind.__name__} nor JSON ({error})") from error
    if read is not None and not isinstance(read, kind):
        raise RowProblem(f"{name} that are JSON of something else than a {kind.__name__}")
    return read


def _of_kind(value: Any, schema: Any) -> Any:
    """A value with integers where its JSON Schema has them."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, dict):
        properties = schema.get("properties")
        schemas = properties if isinstance(properties, dict) else {}
        return {
            key: _of_kind(part, schemas.get(key, schema.get("additionalProperties"))) for key, part in value.items()
        }
    if isinstance(value, list):
        return [_of_kind(part, schema.get("items")) for part in value]
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    whole = "integer" in kinds and "number" not in kinds
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


def _whole_numbers(schema: Any) -> Any:
    """A tool's JSON Schema with integers wherever nothing else is valid."""
    if isinstance(schema, list):
        return [_whole_numbers(part) for part in schema]
    if not isinstance(schema, dict):
        return schema

    def part(key: str, value: Any) -> Any:
        if key == "properties" and isinstance(value, dict):
            return {name: _whole_numbers(each) for name, each in value.items()}
        if key in COUNTS:
            return _of_kind(value, {"type": "integer"})
        if key in LISTS and isinstance(value, list):
            return [_of_kind(each, schema) for each in value]
        return _of_kind(value, schema) if key in VALUES else _whole_numbers(value)

    return {key: part(key, value) for key, value in schema.items()}


def _calls(value: Any) -> list[Any]:
    """The tool calls of each message of a conversation; [] for anything else."""
    return [turn.get("tool_calls") for turn in value if isinstance(turn, dict)] if isinstance(value, list) else []


def _same(first: Any, second: Any) -> bool:
    """Whether two values are written identically: 3 is not 3.0, and the order of keys counts."""
    return json.dumps(first, default=str) == json.dumps(second, default=str)


def _as_json(name: str, value: Any) -> Any:
    if name in NESTED:
        return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if name not in CONVERSATIONS or not any(_calls(value)):
        return value

    def turn(message: Any) -> Any:
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        return {**message, "tool_calls": json.dumps(calls, ensure_ascii=False)} if isinstance(calls, list) else message

    return [turn(message) for message in value]
