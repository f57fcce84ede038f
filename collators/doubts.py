"""Reasons to doubt rows that can be trained on."""

import re
from collections.abc import Sequence

from hf_align.collators.rows import Side, content_of

NEAR_IDENTICAL = "near-identical responses (the same but for case, punctuation and spaces)"
REPEATED_PROMPT = "responses that repeat the prompt (they should hold only what follows it)"
NO_ORDER = "no response better than another"
ZERO_MARGIN = "a margin of 0, which weights their loss with 0 (margin_mode='weight')"

LONG_FACTOR = 10
"""A row counts as very long if it has this many times as many characters as the median row ..."""
LONG_CHARACTERS = 4000
"""... and at least this many."""
SHORT_PROMPT = 20
"""Characters of a prompt below which a response may well begin with the same words, such as "Hi"."""


def are_near_identical(texts: Sequence[str]) -> bool:
    """Whether two texts are the same but for case, punctuation and spaces; texts without a letter or digit aren't."""
    bare = [letters for text in texts if (letters := re.sub(r"[\W_]+", "", text.casefold()))]
    return len(set(bare)) < len(bare)


def repeat_prompt(prompt: Side | None, texts: Sequence[str]) -> bool:
    """Whether responses begin with the whole prompt, in a conversation with its last message.

    One of them is enough, except after a short prompt: there it takes all of them, and text. An implicit prompt, None,
    isn't repeated.
    """
    words = asked(prompt)
    if not words:
        return False
    begin = [text.lstrip().startswith(words) for text in texts]
    return any(begin) if len(words) >= SHORT_PROMPT else isinstance(prompt, str) and all(begin)


def asked(prompt: Side | None) -> str:
    """A prompt's text, of a conversation its last message if that is a user's."""
    if isinstance(prompt, list):
        prompt = content_of(prompt[-1]) if prompt[-1]["role"] == "user" else ""
    return (prompt or "").strip()


def long_limit(lengths: Sequence[int]) -> tuple[int, int]:
    """Characters above which a row is very long, and the median row's, from all rows' characters."""
    median = sorted(lengths)[len(lengths) // 2] if len(lengths) else 0
    return max(LONG_FACTOR * median, LONG_CHARACTERS), median
