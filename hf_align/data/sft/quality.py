"""Quality of a text from 0 to 1: as good as its worst part.

Each part is 1 where nothing is wrong and .5 at a limit, so that a threshold of .5 drops what is beyond the limits.
Those of repetition are Rae et al.'s ("Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
2021, Table A1); the others are ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

TOP_GRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
"""Largest share of the characters that repetitions of the most frequent n words may have."""
DUPLICATE_GRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Largest share of the characters in n words that stood before."""
DOCUMENT = 75
"""Words from which a text is measured as a document; limits of shorter ones are higher in proportion ..."""
OF_SENTENCES = 0.45
"""... up to this."""
DUPLICATE_LINES = 0.20
"""Largest share of the characters in lines, or paragraphs, that stood before."""
FEW_LETTERS = 0.2
"""Smallest share of letters and digits among what isn't white space."""
BROKEN = 0.02
"""Most broken characters for each word."""
SHORT = 1
"""Fewest words."""
CUT_OFF = 0.25
"""Quality of a text that ends in the middle of a sentence."""

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f\U00020000-\U0003ffff]|\w+(?:['’]\w+)*")
"""Words; of writing without spaces each character."""
MOJIBAKE = re.compile(
    r"\ufffd|\u00c3[\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u2122]|\u00e2\u20ac|\u00c2[\u00a0-\u00bf]|\u00f0\u0178"
)
"""Replacement characters, and UTF-8 that was read as Windows-1252."""
UNFINISHED = re.compile(
    r"(?:,|(?<=[\w\s])[(\[{]|\b(?:the|an|and|or|because|my|your|our|their|its|than|very))$", re.IGNORECASE
)
"""Ends after which a sentence goes on."""
FENCE = re.compile(r"^\s*```", re.MULTILINE)


def parts_of(text: str) -> dict[str, float]:
    """The parts of a text's quality by name, each in [0, 1].

    Args:
        text: What is learnt: a completion, or plain text.

    Example:
        >>> from hf_align.data.sft.quality import parts_of
        >>> parts_of("The plot is thin, but the cast is a joy.")
        {'length': 1.0, 'letters': 1.0, 'repetition': 1.0, 'encoding': 1.0, 'ending': 1.0}
        >>> parts_of("good good good good good good")["repetition"]
        0.0
    """
    words = WORD.findall(text)
    return {
        "length": min(1.0, len(words) / (2 * SHORT)),
        "letters": _letters(text),
        "repetition": _repetition(text, words),
        "encoding": max(0.0, 1.0 - len(MOJIBAKE.findall(text)) / max(1, len(words)) / (2 * BROKEN)),
        "ending": CUT_OFF if is_cut_off(text) else 1.0,
    }


def quality_of(parts: Mapping[str, float]) -> tuple[float, str]:
    """The quality, and the name of the worst part."""
    worst = min(parts, key=lambda name: parts[name])
    return parts[worst], worst


def is_cut_off(text: str) -> bool:
    """Whether a text surely ends before its end: after a comma, an article, a conjunction, or inside a code block."""
    return UNFINISHED.search(text.rstrip()) is not None or len(FENCE.findall(text)) % 2 == 1


def _letters(text: str) -> float:
    characters = [character for character in text if not character.isspace()]
    letters = sum(character.isalnum() for character in characters)
    return min(1.0, letters / max(1, len(characters)) / (2 * FEW_LETTERS))


def _repetition(text: str, words: Sequence[str]) -> float:
    """1 without repetition, .5 at the limit, 0 where there is nothing else."""
    return min(_part(share, limit) for share, limit in chain(_of_lines(text), _of_words(words)))


def _part(share: float, limit: float) -> float:
    """From 1 at a share of 0 by .5 at the limit to 0 at 1."""
    return 1.0 - 0.5 * share / limit if share <= limit else 0.5 * (1.0 - share) / (1.0 - limit)


def _of_lines(text: str) -> list[tuple[float, float]]:
    """Shares of repeated lines and paragraphs, with their limits; the table's, by characters."""
    shares = []
    for separator in ("\n", "\n\n"):
        pieces = [piece.strip() for piece in text.split(separator) if piece.strip()]
        total = sum(map(len, pieces))
        once = sum(map(len, set(pieces)))
        shares.append(((total - once) / max(1, total), DUPLICATE_LINES))
    return shares


def _of_words(words: Sequence[str]) -> list[tuple[float, float]]:
    """Shares of repeated n-grams, with their limits.

    The table is made for documents; in a sentence any two words twice would be beyond it. So the first occurrence of
    a frequent n-gram doesn't count, nor does one that occurs twice, and limits rise as texts get shorter.
    """
    lower = [word.lower() for word in words]
    total = max(1, sum(map(len, lower)))
    rise = max(1.0, DOCUMENT / max(1, len(words)))
    shares = [(0.0, 1.0)]
    for n, limit in TOP_GRAMS.items():
        gram, count = max(_grams(lower, n).items(), key=lambda item: item[1], default=((), 0))
        if count < 3:  # nor will a longer one
            break
        shares.append((min(1.0, (count - 1) * sum(map(len, gram)) / total), min(OF_SENTENCES, rise * limit)))
    for n, limit in DUPLICATE_GRAMS.items():
        if not (share := _duplicate_share(lower, n, total)):
            break
        shares.append((share, min(OF_SENTENCES, rise * limit)))
    return shares


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _duplicate_share(words: Sequence[str], n: int, total: int) -> float:
    """Share of the characters in n-grams that stood before; each word counts once."""
    seen: set[tuple[str, ...]] = set()
    repeated: set[int] = set()
    for start, gram in enumerate(zip(*(words[start:] for start in range(n)), strict=False)):
        if gram in seen:
            repeated.update(range(start, start + n))
        seen.add(gram)
    return sum(len(words[number]) for number in repeated) / total
