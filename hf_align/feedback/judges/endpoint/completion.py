"""A request to a chat model and its answer, as they are sent, stored and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hf_align.numbers import is_number


class Malformed(ValueError):
    """An answer that isn't one of the OpenAI interface."""


@dataclass(frozen=True)
class ChatRequest:
    """What a chat model is asked.

    Attributes:
        messages: The conversation, each message with role and content.
        max_tokens: Length limit of the answer; None: the endpoint's.
        temperature: Sampling temperature; None: the endpoint's.
        top_p: Nucleus; None: the endpoint's.
        seed: Seed, for endpoints that take one; another seed is another request.
        stop: Texts that end the answer.
        top_logprobs: How many of the most likely tokens to tell at each place; None: no log-probs.
    """

    messages: Sequence[Mapping[str, Any]]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: Sequence[str] | None = None
    top_logprobs: int | None = None

    def payload(self) -> dict[str, Any]:
        """Arguments of `chat_completion`, without those that aren't given."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        given["messages"] = [dict(message) for message in self.messages]
        if self.top_logprobs is not None:
            given["logprobs"] = True
        return given


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        text: The token.
        logprob: Its log-prob.
        top: The most likely tokens at its place, with log-probs.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Completion:
    """An answer.

    Attributes:
        text: What the model wrote; empty where it wrote nothing but thoughts.
        finish_reason: Why it stopped, "length" where it was cut.
        tokens: Tokens with log-probs; None where the endpoint gives none.
        prompt_tokens: Tokens of the request; None where the endpoint doesn't count.
        completion_tokens: Tokens of the answer, thoughts included.
    """

    text: str
    finish_reason: str | None = None
    tokens: tuple[Token, ...] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def to_json(self) -> str:
        """JSON, from which `from_json` makes an equal one."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Completion:
        """What `to_json` wrote."""
        values = json.loads(text)
        if values["tokens"] is not None:
            tokens = [(each["text"], each["logprob"], each["top"]) for each in values["tokens"]]
            values["tokens"] = tuple(Token(text, own, tuple(map(tuple, top))) for text, own, top in tokens)
        return Completion(**values)


def read_completion(output: Any, hide: Callable[[str], str]) -> Completion:
    """An answer from the output of `InferenceClient.chat_completion`.

    Args:
        output: The output, whose fields may be anything that the server sent.
        hide: Takes the key out of a text, in case the endpoint repeats it.

    Raises:
        Malformed: It has no answer.
    """
    choices = _at(output, "choices")
    if not isinstance(choices, list) or not choices:
        said = _at(_at(output, "error"), "message")  # an error with status 200, as some gateways send it
        raise Malformed(f"the answer has no choices{f': {said}' if isinstance(said, str) else ''}")
    message = _at(choices[0], "message")
    content = _at(message, "content")
    if message is None or not isinstance(content, str | None):
        raise Malformed("the answer has no message with a text")
    shown = hide(content or "")
    reason, usage = _at(choices[0], "finish_reason"), _at(output, "usage")
    return Completion(
        shown,
        reason if isinstance(reason, str) else None,
        _tokens(_at(_at(choices[0], "logprobs"), "content")) if shown == (content or "") else None,
        _count(_at(usage, "prompt_tokens")),
        _count(_at(usage, "completion_tokens")),
    )


def _at(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _tokens(content: Any) -> tuple[Token, ...] | None:
    """Tokens with log-probs, or None where one isn't well formed."""
    if not isinstance(content, list) or not content:
        return None
    tokens: list[Token] = []
    for each in content:
        top = _at(each, "top_logprobs")
        pairs = [(_at(one, "token"), _at(one, "logprob")) for one in (top if isinstance(top, list) else [])]
        own = (_at(each, "token"), _at(each, "logprob"))
        if not all(isinstance(text, str) and is_number(logprob) and logprob <= 1e-6 for text, logprob in [own, *pairs]):
            return None
        tokens.append(Token(*own, tuple(pairs)))
    return tuple(tokens)
