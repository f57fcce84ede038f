"""Reasons to doubt rows that can be trained on."""

from collections.abc import Sequence

import regex

from hf_align.collators.rows import Side, content_of

DUPLICATE = "an exact duplicate earlier on"
OPPOSITE = "the opposite preference earlier on"
NEAR_IDENTICAL = "near-identical responses (the same but for case, punctuation and spaces)"
REPEATED_PROMPT = "responses that repeat the prompt (they should hold only what follows it)"
NO_ORDER = "no response better than another"
ZERO_MARGIN = "a margin of 0, which weights their loss with 0 (margin_mode='weight')"

_SIGNS = {code: None for code in range(128) if not chr(code).isalnum()}
"""ASCII characters that aren't letters or digits: most texts have no others, and this is five times faster."""

_NO_LETTERS = regex.compile(r"[^\p{L}\p{M}\p{N}]|[\ufe00-\ufe0f]")
"""The same in any script: vowel signs are letters, variation selectors of emoji aren't."""

LONG_FACTOR = 10
"""A row counts as very long if it has this many times as many characters as the median row ..."""
LONG_CHARACTERS = 4000
"""... and at least this many."""
SHORT_PROMPT = 20
"""Characters of a prompt below which a response may well begin with the same words, such as "Hi"."""


def are_near_identical(texts: Sequence[str]) -> bool:
    """Whether two texts are the same but for case, punctuation and spaces; texts without a letter or digit aren't."""
    bare = [letters for text in texts if (letters := _bare(text))]
    return len(set(bare)) < len(bare)


def _bare(text: str) -> str:
    text = text.casefold().translate(_SIGNS)
    return text if text.isascii() else _NO_LETTERS.sub("", text)


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
