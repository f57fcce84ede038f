"""Checks of demonstrations, and conversion to a form that TRL trains on."""

from __future__ import annotations

import json
import logging
from typing import Any

from datasets import Dataset

from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.rows import RowProblem, read_side
from hf_align.collators.tools import template_options
from hf_align.errors import UserError

logger = logging.getLogger(__name__)


FORMATS = (("prompt", "completion"), ("messages",), ("text",))


def read_demonstrations(dataset: Any, name: str, *, whole: bool = False) -> Dataset:
    """Check every row and convert it to a form that TRL trains on.

    Args:
        dataset: See `SFTTrainer`.
        name: The argument's name, for messages.
        whole: Keep conversations in one piece, for `assistant_only_loss`, instead of splitting off the last message.

    Returns:
        Rows with `prompt` and `completion`, with `messages` (whole conversations), or with `text`; and with `tools`.

    Raises:
        UserError: Columns are missing, or rows can't be used; the message gives counts and row numbers.
    """
    data = as_dataset(dataset, name, ())
    columns = next((columns for columns in FORMATS if set(columns) <= set(data.column_names)), None)
    if columns is None:
        raise UserError(
            f"{name} has the columns {', '.join(data.column_names)}; training on demonstrations needs prompt and "
            "completion, messages, or text."
        )
    if "chat_template_kwargs" in data.column_names:
        logger.warning("%s: training on demonstrations does not read the column chat_template_kwargs.", name)
    tools = ["tools"] if "tools" in data.column_names and columns != ("text",) else []
    rows = data.select_columns([*columns, *tools]).with_format(None)

    def read(row: dict[str, Any]) -> dict[str, Any]:
        # As JSON text, which TRL parses, tools are safe from Arrow.
        given = {"tools": json.dumps(template_options(row)["tools"] or [], ensure_ascii=False)} if tools else {}
        return _read_row(row, columns, whole) | given

    return Dataset.from_list(read_rows(rows, read, name))


def _read_row(row: dict[str, Any], columns: tuple[str, ...], whole: bool) -> dict[str, Any]:
    sides = {column: read_side(row, column) for column in columns}
    if columns == ("text",):
        if not isinstance(sides["text"], str):
            raise RowProblem("a text that is a list of messages (call the column messages)")
        return sides
    if columns == ("prompt", "completion"):
        prompt, completion = sides["prompt"], sides["completion"]
        if isinstance(prompt, list) and isinstance(completion, str):
            completion = [{"role": "assistant", "content": completion}]
        if isinstance(prompt, str) != isinstance(completion, str):
            raise RowProblem("a text prompt with messages as completion")
        if not isinstance(completion, str) and completion[-1]["role"] != "assistant":
            raise RowProblem("a completion that doesn't end with an assistant message")
        return {"prompt": prompt, "completion": completion}
    messages = sides["messages"]
    if isinstance(messages, str):
        raise RowProblem("messages that are text (call the column text)")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise RowProblem("messages that don't end with an assistant message after another one")
    return {"messages": messages} if whole else {"prompt": messages[:-1], "completion": messages[-1:]}
