"""What a response looks like, apart from what it says."""

from __future__ import annotations

import re
from collections.abc import Callable

import regex

_EMOJI = regex.compile(r"[\p{Emoji_Presentation}\p{Extended_Pictographic}--[\u00a9\u00ae\u2122]]", regex.VERSION1)
_REFUSAL = re.compile(
    r"\bi(?:['\u2019]m| am) (?:so |very |really )?sorry\b|\bi apologi[sz]e\b"
    r"|\bi (?:cannot|can not|can['\u2019]t|am unable to|['\u2019]m unable to|won['\u2019]t|will not|am not able to) "
    r"(?:\w+ ){0,2}?(?:help|assist|provide|answer|fulfil|comply|create|generate|write|do that|engage|support|discuss)"
    r"|\bi(?:['\u2019]m| am) (?:unable|not able|not allowed|not comfortable)\b"
)
_DISCLAIMER = re.compile(
    r"\b(?:as|i am|i['\u2019]m|being) (?:just |only )?an? (?:ai\b|artificial intelligence|(?:large )?language model)",
    re.IGNORECASE,
)
BEGINNING = 200
"""Characters in which a refusal has to begin."""

_BULLETS = re.compile(r"^[ \t]*[-*+\u2022] ", re.MULTILINE)
_NUMBERS = re.compile(r"^[ \t]*\d{1,2}[.)] ", re.MULTILINE)


def _refuses(text: str) -> bool:
    start = text[:BEGINNING].lower()
    # Searching for words is ten times as fast as the expression.
    return any(word in start for word in ("sorry", "pologi", "not", "can't", "can\u2019t", "unable", "won")) and bool(
        _REFUSAL.search(start)
    )


def _is_an_ai(text: str) -> bool:
    words = ("an AI", "an ai", "rtificial", "anguage model")
    return any(word in text for word in words) and bool(_DISCLAIMER.search(text))


def _has_lines(text: str, line: re.Pattern[str]) -> bool:
    return bool(line.search(text) if "\n" in text else line.match(text))


TRAITS: dict[str, Callable[[str], object]] = {
    "headings": lambda text: "#" in text and re.search(r"^#{1,6} ", text, re.MULTILINE),
    "bold text": lambda text: "**" in text and re.search(r"\*\*\S", text),
    "bulleted lists": lambda text: _has_lines(text, _BULLETS),
    "numbered lists": lambda text: _has_lines(text, _NUMBERS),
    "tables": lambda text: "|" in text and re.search(r"^\|.*\|[ \t]*$", text, re.MULTILINE),
    "code blocks": lambda text: "```" in text,
    "links": lambda text: "://" in text,
    "several paragraphs": lambda text: "\n\n" in text.strip(),
    "emojis": lambda text: not text.isascii() and _EMOJI.search(text),
    "exclamation marks": lambda text: "!" in text,
    "a question at the end": lambda text: text.rstrip().endswith("?"),
    "refusals": _refuses,
    "talk of being an AI": _is_an_ai,
}
"""Whether a text has it, by name."""


def traits_of(text: str) -> int:
    """The traits of a text as bits, in the order of `TRAITS`.

    Example:
        >>> from hf_align.data.inspection.style import TRAITS, traits_of
        >>> [name for bit, name in enumerate(TRAITS) if traits_of("As an AI, I can't help!") >> bit & 1]
        ['exclamation marks', 'refusals', 'talk of being an AI']
    """
    return sum(bool(has(text)) << bit for bit, has in enumerate(TRAITS.values()))


def opening_of(text: str, words: int = 2) -> str:
    """The first words of a text, lower-case and without punctuation around them; "" for a text of fewer words.

    Example:
        >>> from hf_align.data.inspection.style import opening_of
        >>> opening_of(" **Sure!** Here is a list")
        'sure here'
    """
    parts = [part.strip(_AROUND) for part in text[:80].lower().split(maxsplit=words + 1)[: words + 1]]
    named = [part for part in parts if part][:words]
    return " ".join(named) if len(named) == words else ""


_AROUND = "\"'`*_#.,:;!?()[]{}<>-\u2013\u2014\u2018\u2019\u201c\u201d"
