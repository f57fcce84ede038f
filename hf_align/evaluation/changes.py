"""Changes of a response that leave its meaning as it is, made alike every time from a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from hf_align.errors import UserError

Change = Callable[[str, random.Random], str]

TYPO_SHARE = 0.1
"""Share of a text's words that get a typo or a filler, at least one word."""
TAIL_SHARE = 0.1
"""Share of a text's words that truncation cuts."""
_FILLERS = ("um,", "well,", "you know,", "I mean,", "so,")
_CONTRACTIONS = {
    "do not": "don't",
    "does not": "doesn't",
    "did not": "didn't",
    "is not": "isn't",
    "are not": "aren't",
    "was not": "wasn't",
    "were not": "weren't",
    "have not": "haven't",
    "has not": "hasn't",
    "had not": "hadn't",
    "cannot": "can't",
    "could not": "couldn't",
    "would not": "wouldn't",
    "should not": "shouldn't",
    "it is": "it's",
    "that is": "that's",
    "there is": "there's",
    "I am": "I'm",
    "you are": "you're",
    "we are": "we're",
    "they are": "they're",
    "I have": "I've",
    "I will": "I'll",
}


def _letters_swapped(text: str, rng: random.Random) -> str:
    def swap(word: str) -> str:
        place = rng.randrange(len(word) - 1)
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return _in_some_words(text, rng, swap)


def _letters_dropped(text: str, rng: random.Random) -> str:
    def drop(word: str) -> str:
        place = rng.randrange(1, len(word))
        return word[:place] + word[place + 1 :]

    return _in_some_words(text, rng, drop)


def _in_some_words(text: str, rng: random.Random, change: Callable[[str], str]) -> str:
    """The text with a tenth of its words of four or more letters changed, at least one."""
    places = [match.span() for match in re.finditer(r"[^\W\d_]{4,}", text)]
    if not places:
        return text
    drawn = sorted(rng.sample(places, max(1, round(TYPO_SHARE * len(places)))), reverse=True)
    for start, end in drawn:
        text = text[:start] + change(text[start:end]) + text[end:]
    return text


def _fillers(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    for place in sorted(rng.sample(range(len(words)), max(1, round(TYPO_SHARE * len(words)))), reverse=True):
        words.insert(place, rng.choice(_FILLERS))
    return " ".join(words)


def _contracted(text: str, rng: random.Random) -> str:
    """Contractions instead of the full forms, or, in a text without these, the other way round."""
    del rng
    short = _replaced(text, _CONTRACTIONS)
    return short if short != text else _replaced(text, {short: full for full, short in _CONTRACTIONS.items()})


def _replaced(text: str, words: Mapping[str, str]) -> str:
    by_lower = {word.lower(): replacement for word, replacement in words.items()}

    def replace(match: re.Match[str]) -> str:
        word, replacement = match.group(), by_lower[match.group().lower()]
        return replacement[0].upper() + replacement[1:] if word[0].isupper() else replacement

    return re.sub(rf"\b(?:{'|'.join(map(re.escape, words))})\b", replace, text, flags=re.IGNORECASE)


def _tail_cut(text: str, rng: random.Random) -> str:
    del rng
    words = text.split(" ")
    cut = max(1, round(TAIL_SHARE * len(words)))
    return " ".join(words[:-cut]) if len(words) > 2 * cut else text


def _emphasis(text: str, rng: random.Random) -> str:
    """One word of each sentence in bold, as in Markdown."""

    def bold(match: re.Match[str]) -> str:
        words = list(re.finditer(r"[^\W\d_]{4,}", match.group()))
        if not words:
            return match.group()
        word = rng.choice(words)
        start, end = word.span()
        return f"{match.group()[:start]}**{word.group()}**{match.group()[end:]}"

    return re.sub(r"[^.!?]+", bold, text)


def _typographic(text: str, rng: random.Random) -> str:
    """Typographic quotes, dashes and ellipses for those of a typewriter."""
    del rng
    text = re.sub(r'"([^"]*)"', "\N{LEFT DOUBLE QUOTATION MARK}\\1\N{RIGHT DOUBLE QUOTATION MARK}", text)
    text = text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}").replace("...", "\N{HORIZONTAL ELLIPSIS}")
    return text.replace(" - ", " \N{EN DASH} ")


CHANGES: Mapping[str, Change] = {
    "letters_swapped": _letters_swapped,
    "letters_dropped": _letters_dropped,
    "lower_case": lambda text, rng: text.lower(),
    "upper_case": lambda text, rng: text.upper(),
    "double_spaces": lambda text, rng: text.replace(" ", "  "),
    "spaces_around": lambda text, rng: f"  {text}  ",
    "no_break_spaces": lambda text, rng: text.replace(" ", "\N{NO-BREAK SPACE}"),
    "line_breaks": lambda text, rng: re.sub(r"(?<=[.!?,;:]) +", "\n", text),
    "in_quotes": lambda text, rng: f'"{text}"',
    "quoted_lines": lambda text, rng: "\n".join(f"> {line}" for line in text.split("\n")),
    "code_block": lambda text, rng: f"```\n{text}\n```",
    "fillers": _fillers,
    "no_punctuation": lambda text, rng: re.sub(r"[.,;:!]+(?=\s|$)", "", text),
    "contractions": _contracted,
    "typographic": _typographic,
    "emphasis": _emphasis,
    "polite_start": lambda text, rng: f"Sure, here it is:\n{text}",
    "polite_end": lambda text, rng: f"{text}\nI hope this helps!",
    "tail_cut": _tail_cut,
}
"""Changes by name."""


def changed(texts: Sequence[str], name: str, seed: int = 0) -> list[str]:
    """Texts with a named change.

    Args:
        texts: The texts; the same text is changed the same way wherever it stands.
        name: A key of `CHANGES`.
        seed: Seed of random changes.

    Raises:
        UserError: There is no such change.
    """
    check_changes([name])
    return [CHANGES[name](text, random.Random(f"{seed}/{name}/{text}")) for text in texts]


def check_changes(names: Sequence[str]) -> None:
    """Refuse names that aren't changes."""
    if unknown := [name for name in names if name not in CHANGES]:
        raise UserError(f"changes has {unknown[0]!r}; use some of {', '.join(CHANGES)}.")
