"""One row of a preference data set, whatever its format: what is the prompt, what are the two responses.

Accepted are the formats users bring along from TRL. Text ("standard") or lists of messages ("conversational"); a
`prompt` column ("explicit prompt") or none, in which case the prompt is what chosen and rejected begin with in common
("implicit prompt"). In conversations chosen and rejected may hold the responses alone or repeat the prompt's messages.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Side = str | list[Message]
"""A prompt or a response: text, or a list of messages."""


class RowProblem(ValueError):
    """Reason against a row, worded to follow "3 rows have", e.g. "an empty chosen"."""


@dataclass(frozen=True)
class Pair:
    """A preference pair with prompt and responses told apart.

    Attributes:
        prompt: Text or messages; None for text with an implicit prompt, which only shows on the tokens.
        chosen: The preferred response. Text with an implicit prompt still begins with that prompt.
        rejected: The other response, of the same type.
    """

    prompt: Side | None
    chosen: Side
    rejected: Side

    @property
    def conversational(self) -> bool:
        """Whether the responses are messages."""
        return isinstance(self.chosen, list)


def read_pair(row: dict[str, Any]) -> Pair:
    """Tell prompt, chosen and rejected of one row apart.

    Args:
        row: `chosen` and `rejected`, and `prompt` unless it is implicit; other keys are ignored.

    Raises:
        RowProblem: If something is missing, empty or malformed, or the responses are identical.
    """
    prompt = read_side(row, "prompt") if "prompt" in row else None
    chosen, rejected = read_side(row, "chosen"), read_side(row, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowProblem("text on one side and messages on the other")
    if chosen == rejected:
        raise RowProblem("identical chosen and rejected")
    if isinstance(prompt, list) and isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = ([Message(role="assistant", content=text)] for text in (chosen, rejected))
    if isinstance(chosen, str) or isinstance(rejected, str):
        return Pair(prompt, chosen, rejected)
    return _read_conversation(prompt, chosen, rejected)


def read_prompt(row: dict[str, Any]) -> Side:
    """The prompt of one row that holds nothing else to train on.

    Raises:
        RowProblem: If it is missing, empty or malformed.
    """
    return read_side(row, "prompt")


def join_messages(prompt: list[Message], response: list[Message]) -> list[Message]:
    """The whole conversation; a prompt that ends with an assistant message is continued inside that message."""
    if prompt[-1]["role"] != "assistant":
        return prompt + response
    text = _content(prompt[-1]) + _content(response[0])
    content = text if isinstance(prompt[-1].get("content"), str) else [{"type": "text", "text": text}]
    return [*prompt[:-1], {**prompt[-1], **response[0], "content": content}, *response[1:]]


def text_of(side: Side) -> str:
    """The text the side holds, tool calls included, without roles."""
    return side if isinstance(side, str) else "".join(map(_message_text, side))


def key_of(side: Side | None) -> int:
    """A hash by which sides are compared within one process."""
    return hash(tuple((turn["role"], _message_text(turn)) for turn in side) if isinstance(side, list) else side)


def shared_length(first: Sequence, second: Sequence) -> int:
    """Number of leading items that are equal."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(first), len(second)))


def _message_text(message: Message) -> str:
    calls = message.get("tool_calls")
    return _content(message) + (json.dumps(calls, default=str) if calls else "")


def _content(message: Message) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def read_side(row: dict[str, Any], field: str) -> Side:
    """The field's text or messages, without keys that are None (Arrow fills them in)."""
    value = row.get(field)
    if value is None:
        raise RowProblem(f"no {field}")
    if isinstance(value, str):
        if not value.strip():
            raise RowProblem(f"an empty {field}")
        return value
    if not isinstance(value, list):
        raise RowProblem(f"a {field} that is neither text nor a list of messages")
    messages = [_read_message(message, field) for message in value]
    if not messages or not text_of(messages[-1:]).strip():
        raise RowProblem(f"an empty {field}")
    return messages


def _read_message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise RowProblem(f"a {field} that is neither text nor a list of messages")
    message = {key: value for key, value in message.items() if value is not None}
    if not isinstance(message.get("role"), str) or not message["role"].strip():
        raise RowProblem(f"a message without role in {field}")
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise RowProblem(f"a message without content in {field}")
    parts = content if isinstance(content, list) else []
    readable = content is None or isinstance(content, str | list)
    if not readable or not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise RowProblem(f"a message whose content is not text in {field}")
    return message


def _read_conversation(prompt: Side | None, chosen: list[Message], rejected: list[Message]) -> Pair:
    if isinstance(prompt, str) and chosen[0]["role"] == rejected[0]["role"] == "assistant":
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(prompt, list):
        chosen, rejected = _without_prompt(prompt, chosen), _without_prompt(prompt, rejected)
    else:  # a text prompt beside whole conversations only repeats what they begin with
        shared = shared_length(chosen, rejected)
        while shared and chosen[shared - 1]["role"] == "assistant":  # its answer has to begin there
            shared -= 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not prompt:
            raise RowProblem("no prompt: chosen and rejected share no first messages")
    for field, response in (("chosen", chosen), ("rejected", rejected)):
        if not response:
            raise RowProblem(f"an empty {field}")
        if response[0]["role"] != "assistant":
            raise RowProblem(f"a {field} that begins neither with the prompt's messages nor with an assistant message")
        if response[-1]["role"] != "assistant":
            raise RowProblem(f"a {field} that doesn't end with an assistant message")
    return Pair(prompt, chosen, rejected)


def _without_prompt(prompt: list[Message], response: list[Message]) -> list[Message]:
    """The response alone, where it repeats the prompt's messages (the last of them perhaps continued)."""
    n = len(prompt)
    if response[:n] == prompt:
        return response[n:]
    prefill = _content(prompt[-1])
    if 1 < n <= len(response) and response[: n - 1] == prompt[:-1] and prompt[-1]["role"] == "assistant":
        continued = _content(response[n - 1])
        if response[n - 1]["role"] == "assistant" and continued.startswith(prefill):
            return [{**response[n - 1], "content": continued[len(prefill) :]}, *response[n:]]
    return response
