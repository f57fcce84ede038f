"""One row of a preference data set in any format, split into the prompt and the two responses.

TRL's formats are accepted: text ("standard") or lists of messages ("conversational"); a `prompt` column ("explicit
prompt") or none, in which case the prompt is the common beginning of chosen and rejected ("implicit prompt"). In
conversations chosen and rejected may contain only the responses or repeat the prompt's messages.
"""

import json
import string
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import regex

Message = dict[str, Any]
Side = str | list[Message]
"""A prompt or a response: text, or a list of messages."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message that may hold its thought, if the content doesn't."""


NO_PROMPT = "no prompt: chosen and rejected share no first words"
NO_MESSAGES = "no prompt: chosen and rejected share no first messages"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
"""Characters without width that `str.strip` leaves: a text of these alone is empty."""

ProblemKind = Literal[
    "missing", "empty_response", "identical_responses", "bad_number", "wrong_roles", "malformed", "template"
]
"""What is wrong with a row: something isn't there, is empty or occurs twice; a number can't be one; roles are out of
order; a value has another type or form; the tokenizer or its chat template can't write it."""


class RowProblem(ValueError):
    """Problem of a row.

    Args:
        reason: Worded to follow "3 rows have", e.g. "an empty chosen".
        kind: See `ProblemKind`.
    """

    def __init__(self, reason: str, kind: ProblemKind = "malformed"):
        super().__init__(reason)
        self.kind: ProblemKind = kind


@dataclass(frozen=True)
class Pair:
    """A preference pair with separate prompt and responses.

    Attributes:
        prompt: Text or messages; None for text with an implicit prompt, which is only determined on tokens.
        chosen: The preferred response. Text with an implicit prompt still begins with that prompt.
        rejected: The other response, of the same type.
    """

    prompt: Side | None
    chosen: Side
    rejected: Side
    names: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    @property
    def responses(self) -> tuple[Side, ...]:
        """The preferred response, then the other."""
        return self.chosen, self.rejected


def read_pair(row: dict[str, Any]) -> Pair:
    """Separate prompt, chosen and rejected of one row.

    Args:
        row: `chosen` and `rejected`, and `prompt` unless it is implicit; other keys are ignored.

    Raises:
        RowProblem: Something is missing, empty or malformed, or the responses are identical.
    """
    prompt = read_side(row, "prompt") if "prompt" in row else None
    chosen, rejected = read_side(row, "chosen"), read_side(row, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowProblem("text on one side and messages on the other")
    if chosen == rejected:
        raise RowProblem("identical chosen and rejected", "identical_responses")
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        if not any(word_ends(chosen, rejected)):
            raise RowProblem(NO_PROMPT, "missing")
        return Pair(prompt, chosen, rejected)
    prompt, (chosen, rejected) = join_sides(prompt, [chosen, rejected], Pair.names)
    return Pair(prompt, chosen, rejected)


def join_sides(prompt: Side | None, responses: Sequence[Side], names: Sequence[str]) -> tuple[Side, list[Side]]:
    """A prompt and responses of one type, without the prompt's messages that a response repeats.

    Args:
        prompt: Text or messages; None for conversations that begin with it.
        responses: All text, or all messages. Text after a prompt in messages becomes assistant messages.
        names: What each response is called in messages.

    Raises:
        RowProblem: A conversation is malformed, or there is no prompt.
    """
    if all(isinstance(response, str) for response in responses) and prompt is not None:
        if isinstance(prompt, str):
            return prompt, list(responses)
        responses = [[Message(role="assistant", content=response)] for response in responses]
    joined, rests = _read_conversation(prompt, cast(Any, responses), names)
    return joined, list(rests)


def read_prompt(row: dict[str, Any]) -> Side:
    """The prompt of a row of prompts.

    Raises:
        RowProblem: It is missing, empty or malformed.
    """
    return read_side(row, "prompt")


def join_messages(prompt: list[Message], response: list[Message]) -> list[Message]:
    """The whole conversation; a prompt that ends with an assistant message is continued inside that message."""
    if prompt[-1]["role"] != "assistant":
        return prompt + response
    text = content_of(prompt[-1]) + content_of(response[0])
    content = text if isinstance(prompt[-1].get("content"), str) else [{"type": "text", "text": text}]
    return [*prompt[:-1], {**prompt[-1], **response[0], "content": content}, *response[1:]]


def as_turns(side: Side, role: str) -> list[Message]:
    """Text as one message of a role; messages as they are."""
    return [{"role": role, "content": side}] if isinstance(side, str) else side


def as_response(text: str, prompt: Side) -> Side:
    """A response's text in the form of its prompt: a message where that is messages."""
    return text if isinstance(prompt, str) else as_turns(text, "assistant")


def text_of(side: Side) -> str:
    """The text of a side, including tool calls, without roles."""
    return side if isinstance(side, str) else "".join(map(_message_text, side))


def is_blank(text: str) -> bool:
    """Whether a text shows nothing."""
    return not text.strip() or not text.strip(INVISIBLE + string.whitespace).strip()


def key_of(side: Side | None) -> int:
    """A hash to compare sides within one process."""
    return hash(tuple((turn["role"], _message_text(turn)) for turn in side) if isinstance(side, list) else side)


def shared_length(first: Sequence, second: Sequence) -> int:
    """Number of leading items that are equal."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(first), len(second)))


def thought_of(message: Message) -> str:
    """The thought of a message outside its content, if any."""
    return next((str(message[key]) for key in THOUGHTS if message.get(key)), "")


def without_nulls(value: Any) -> Any:
    """The value without keys that are None, at any depth: Arrow adds keys of other rows."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


def word_ends(chosen: str, rejected: str) -> Iterator[int]:
    """Possible ends of an implicit prompt, longest first: not inside a word, and with a rest of both responses."""
    shared = shared_length(chosen, rejected)
    # Both responses must keep something other than spaces, and the prompt must contain something.
    last = min(shared, len(chosen.rstrip()) - 1, len(rejected.rstrip()) - 1)
    first = len(chosen) - len(chosen.lstrip()) + 1
    for end in range(last, first - 1, -1):
        inside = _in_word(chosen[end - 1]) and (_in_word(chosen[end]) or _in_word(rejected[end]))
        # A space belongs to the word after it, as in most vocabularies.
        if not inside and chosen[end - 1] != " " and not any(_in_character(text, end) for text in (chosen, rejected)):
            yield end


def _in_word(character: str) -> bool:
    """Whether it is part of a word that must not be split; Chinese and Japanese have no spaces between words."""
    if "\u3040" <= character <= "\u9fff" or character >= "\U00020000":
        return False
    return character.isalnum() or character in "_'\u2019" or unicodedata.category(character).startswith("M")


def _in_character(text: str, end: int) -> bool:
    """Whether `text[:end]` ends inside a visible character, such as a compound emoji or an accented letter."""
    start = end - 1
    while start and text[start] >= "\u0300":  # earlier characters don't combine
        start -= 1
    before, behind = (len(regex.findall(r"\X", text[start:stop])) for stop in (end, end + 1))
    return before == behind


def _message_text(message: Message) -> str:
    calls = message.get("tool_calls")
    return thought_of(message) + content_of(message) + (json.dumps(calls, default=str) if calls else "")


def content_of(message: Message) -> str:
    """The text of a message's content."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def read_side(row: dict[str, Any], field: str) -> Side:
    """The field's text or messages."""
    return read_value(row.get(field), field)


def read_value(value: Any, field: str) -> Side:
    """Text or messages, without keys that are None (Arrow adds them); `field` names it in messages."""
    if value is None:
        raise RowProblem(f"no {field}", "missing")
    if isinstance(value, str):
        if is_blank(value):
            raise _empty(field)
        return value
    if not isinstance(value, list):
        raise RowProblem(f"a {field} that is neither text nor a list of messages")
    messages = [_read_message(message, field) for message in value]
    if not messages or is_blank(text_of(messages[-1:])):
        raise _empty(field)
    return messages


def _empty(field: str) -> RowProblem:
    return RowProblem(f"an empty {field}", "missing" if field == "prompt" else "empty_response")


def _read_message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise RowProblem(f"a {field} that is neither text nor a list of messages")
    message = without_nulls(message)
    if not isinstance(message.get("role"), str) or not message["role"].strip():
        raise RowProblem(f"a message without role in {field}", "wrong_roles")
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise RowProblem(f"a message without content in {field}")
    parts = content if isinstance(content, list) else []
    readable = content is None or isinstance(content, str | list)
    if not readable or not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise RowProblem(f"a message whose content is not text in {field}")
    return message


def _read_conversation(
    prompt: Side | None, responses: Sequence[list[Message]], names: Sequence[str]
) -> tuple[list[Message], list[list[Message]]]:
    if isinstance(prompt, str) and all(response[0]["role"] == "assistant" for response in responses):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(prompt, list):
        rests = [_without_prompt(prompt, response) for response in responses]
    else:  # a text prompt next to whole conversations only repeats their beginning
        shared = min(shared_length(responses[0], other) for other in responses[1:])
        while shared and responses[0][shared - 1]["role"] == "assistant":  # the response has to begin there
            shared -= 1
        prompt, rests = responses[0][:shared], [response[shared:] for response in responses]
        if not prompt:
            raise RowProblem(NO_MESSAGES, "missing")
    for field, response in zip(names, rests, strict=True):
        if not response:
            raise _empty(field)
        if response[0]["role"] != "assistant":
            raise RowProblem(
                f"a {field} that begins neither with the prompt's messages nor with an assistant message", "wrong_roles"
            )
        if response[-1]["role"] != "assistant":
            raise RowProblem(f"a {field} that doesn't end with an assistant message", "wrong_roles")
    return prompt, rests


def _without_prompt(prompt: list[Message], response: list[Message]) -> list[Message]:
    """The response without the prompt's messages that it repeats (the last of them possibly continued)."""
    n = len(prompt)
    if response[:n] == prompt:
        return response[n:]
    prefill = content_of(prompt[-1])
    if 1 < n <= len(response) and response[: n - 1] == prompt[:-1] and prompt[-1]["role"] == "assistant":
        continued = content_of(response[n - 1])
        if response[n - 1]["role"] == "assistant" and continued.startswith(prefill):
            return [{**response[n - 1], "content": continued[len(prefill) :]}, *response[n:]]
    return response
