"""What a model is asked, as chat messages: no text is ever taken apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hf_align.collators.rows import Message
from hf_align.feedback.constitution.principles import Constitution, Principle
from hf_align.feedback.records import Prompt

EMPTY = "N/A"
"""A prompt and a response without content (Zhao et al., 2021, "Calibrate Before Use")."""


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt's messages; text is a message of the user."""
    return [_turn("user", prompt.content)] if isinstance(prompt.content, str) else list(prompt.content)


def ask_critique(
    constitution: Constitution, shown: int | None, prompt: Sequence[Message], response: str, principle: Principle
) -> list[Message]:
    """The conversation that ends with the request to criticise a response.

    Args:
        constitution: Has the examples.
        shown: Number of examples, None for all.
        prompt: The prompt's messages; those of the system at its beginning come before the examples.
        response: The response.
        principle: The principle.
    """
    examples: list[Message] = []
    for example in constitution.examples[:shown]:
        its = constitution.get(example.principle)
        examples += _criticised([_turn("user", example.prompt)], example.response, its)
        examples += [_turn("assistant", example.critique)]
        if example.revision:
            examples += [_turn("user", its.revision), _turn("assistant", example.revision)]
    return _behind_system(prompt, examples, lambda rest: _criticised(rest, response, principle))


def ask_revision(critique_asked: Sequence[Message], critique: str, principle: Principle) -> list[Message]:
    """The same conversation with the critique and the request to revise."""
    return [*critique_asked, _turn("assistant", critique), _turn("user", principle.revision)]


def ask_check(
    constitution: Constitution, shown: int | None, prompt: Sequence[Message], response: str, principle: Principle
) -> list[Message]:
    """The conversation that ends with the question whether a response breaks a principle; see `ask_critique`."""
    examples: list[Message] = []
    for example in constitution.examples[:shown]:
        its = constitution.get(example.principle)
        examples += _checked(constitution, [_turn("user", example.prompt)], example.response, its)
        examples += [_turn("assistant", constitution.check.yes if example.revision else constitution.check.no)]
    return _behind_system(prompt, examples, lambda rest: _checked(constitution, rest, response, principle))


def ask_empty_check(constitution: Constitution, shown: int | None, principle: Principle) -> list[Message]:
    """The same question on a prompt and response without content."""
    return ask_check(constitution, shown, [_turn("user", EMPTY)], EMPTY, principle)


def _criticised(prompt: Sequence[Message], response: str, principle: Principle) -> list[Message]:
    return [*prompt, _turn("assistant", response), _turn("user", f"{principle.text} {principle.critique}")]


def _checked(
    constitution: Constitution, prompt: Sequence[Message], response: str, principle: Principle
) -> list[Message]:
    question = f"{principle.text} {constitution.check.question}"
    return [*prompt, _turn("assistant", response), _turn("user", question)]


def _behind_system(
    prompt: Sequence[Message], examples: Sequence[Message], make: Callable[[Sequence[Message]], list[Message]]
) -> list[Message]:
    """The system's messages, the examples, and what is made of the rest of the prompt."""
    start = next((place for place, turn in enumerate(prompt) if turn["role"] != "system"), len(prompt))
    return [*prompt[:start], *examples, *make(prompt[start:])]


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}
