"""Truncation of a prompt with its responses to a maximum length, without ever removing a response."""

from dataclasses import dataclass
from typing import Literal

from hf_align.errors import UserError

Ids = list[int]
TruncationMode = Literal["keep_end", "keep_start"]


@dataclass(frozen=True)
class Limits:
    """Limits of a row's length, and the part of a prompt to keep.

    Attributes:
        max_length: Tokens of prompt + response, for any response; None for no limit.
        max_prompt_length: Tokens of the prompt, whether or not the whole fits; None for no limit.
        truncation_mode: Part of a prompt to keep: its end (default) or its start.

    Raises:
        UserError: A limit leaves no room for a prompt's and a response's token, or the mode is unknown.
    """

    max_length: int | None = None
    max_prompt_length: int | None = None
    truncation_mode: TruncationMode = "keep_end"

    def __post_init__(self) -> None:
        """Refuse limits that no row fits into."""
        if self.max_length is not None and self.max_length < 2:
            raise UserError(
                f"max_length must be at least 2 (a prompt's and a response's token), not {self.max_length}."
            )
        if self.max_prompt_length is not None and self.max_prompt_length < 1:
            raise UserError(f"max_prompt_length must be at least 1, not {self.max_prompt_length}.")
        if self.truncation_mode not in ("keep_end", "keep_start"):
            raise UserError(f"truncation_mode must be 'keep_end' or 'keep_start', not {self.truncation_mode!r}.")


def truncate(prompt: Ids, responses: list[Ids], limits: Limits, *, start: Ids | None = None) -> tuple[Ids, list[Ids]]:
    """Cut the prompt first, then, if prompt and longest response still don't fit, the responses' ends.

    At least one token of the prompt (which predicts the response's first) and of each response is kept. A cut response
    loses its EOS: the model must not learn to stop there.

    Args:
        prompt: At least one token.
        responses: One or more, each of at least one token.
        limits: See `Limits`.
        start: Tokens (BOS) to keep at the prompt's start, if the prompt has them and there is room for one more: many
            models fail without them.
    """
    if limits.max_prompt_length is not None:
        prompt = cut_prompt(prompt, limits.max_prompt_length, limits.truncation_mode, start or [])
    if limits.max_length is not None:
        room = max(1, limits.max_length - max(map(len, responses)))
        prompt = cut_prompt(prompt, room, limits.truncation_mode, start or [])
        room = limits.max_length - len(prompt)
        responses = [ids[:room] for ids in responses]
    return prompt, responses


def cut_prompt(prompt: Ids, length: int, mode: TruncationMode, start: Ids) -> Ids:
    """At most `length` tokens of a prompt; with "keep_end", `start` stays in front if there is room."""
    if len(prompt) <= length:
        return prompt
    if mode == "keep_start":
        return prompt[:length]
    front = start if len(start) < length and prompt[: len(start)] == start else []
    return front + prompt[len(prompt) - (length - len(front)) :]
