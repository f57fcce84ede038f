"""Lengths of a run's rows: those of its data, or without data the longest that its options allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_align.algorithms import Rows
from hf_align.errors import UserError
from hf_align.layout.branches import Document
from hf_align.layout.cost import Lengths

PROMPT = 512
"""Tokens of a prompt where neither data nor options say."""


def longest_allowed(rows: Rows, args: Any, positions: int | None) -> tuple[list[Document], str]:
    """A row as long as the options allow, and in words what was assumed.

    Half of a pair's `max_length` is the prompt, if `max_prompt_length` doesn't say otherwise: of all splits that fill
    a row in the branch layout, less prompt means more tokens.

    Args:
        rows: Kind of rows.
        args: The trainer's config.
        positions: Positions of the model, None for any number.

    Raises:
        UserError: Nothing limits the rows.
    """
    if rows == "prompts":
        prompt = args.max_prompt_length or PROMPT
        said = f"prompts of {prompt} tokens and responses of {args.max_new_tokens}"
        return [([1] * prompt, [[1] * args.max_new_tokens] * args.num_samples)], said
    limit = args.max_length or positions
    if limit is None:
        raise UserError("max_length is null and there is no data, so rows may have any length; give one of them.")
    if rows == "demonstrations":
        return [([1], [[1] * (limit - 1)])], f"rows of {limit} tokens (max_length)"
    prompt = min(getattr(args, "max_prompt_length", None) or limit // 2, limit - 1)
    said = f"prompts of {prompt} tokens and two responses of {limit - prompt}"
    return [([1] * prompt, [[1] * (limit - prompt)] * 2)], said


def lengths_of(documents: Sequence[Document]) -> list[Lengths]:
    """Tokens of each document's prompt and responses."""
    return [(len(prompt), [len(response) for response in responses]) for prompt, responses in documents]


def describe_lengths(documents: Sequence[Document]) -> str:
    """Median, 99th percentile and maximum of the rows' tokens."""
    sizes = [prompt + sum(responses) for prompt, responses in lengths_of(documents)]
    middle, high = np.percentile(sizes, [50, 99], method="higher")
    return (
        f"{np.mean(sizes):.0f} tokens on average, {middle} at the median, {high} at the 99th percentile, {max(sizes)}"
    )


def longest_batch(args: Any, documents: Sequence[Document], size: int) -> list[Document]:
    """The micro-batch of `size` rows (of rollouts: responses) with the longest rows; short data is repeated."""
    together = math.gcd(size, getattr(args, "num_samples", 1))
    count = max(1, size // together)
    longest = sorted(documents, key=lambda each: len(each[0]) + sum(map(len, each[1])), reverse=True)[:count]
    longest = [longest[number % len(longest)] for number in range(count)]
    return (
        [(prompt, responses[:together]) for prompt, responses in longest]
        if together > 1 or is_rollout(args)
        else longest
    )


def is_rollout(args: Any) -> bool:
    """Whether a config is of a trainer that samples its responses."""
    return hasattr(args, "responses_per_rollout")
