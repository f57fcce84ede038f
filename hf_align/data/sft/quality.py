"""Quality of a text from 0 to 1: as good as its worst part.

Each part is 1 where nothing is wrong, and below .5 beyond a limit, so that a threshold of .5 drops what is beyond the
limits. What repeats itself, and what is mojibake, an inspection says in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hf_align.data.inspection.encoding import REPLACEMENT, without_mojibake
from hf_align.data.inspection.repetition import repeats_itself

BAD = 0.25
"""Most quality of a text that repeats itself, is broken, or ends in the middle of a sentence."""
GRAM = 5
"""Words of a phrase that counts as repeated."""
FEW_LETTERS = 0.2
"""Smallest share of letters and digits among what isn't white space."""
SHORT = 1
"""Fewest words."""
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f\U00020000-\U0003ffff]|\w+(?:['’]\w+)*")
"""Words; of writing without spaces each character."""
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
        >>> round(parts_of("good good good good good good")["repetition"], 2)
        0.17
    """
    words = WORD.findall(text)
    return {
        "length": min(1.0, len(words) / (2 * SHORT)),
        "letters": _letters(text),
        "repetition": _repetition(text, words),
        "encoding": BAD if REPLACEMENT in text or without_mojibake(text) != text else 1.0,
        "ending": BAD if is_cut_off(text) else 1.0,
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
    """1 less the share of characters in phrases that stood before; low if `repeats_itself` says so."""
    lower = [word.lower() for word in words]
    seen: set[tuple[str, ...]] = set()
    repeated: set[int] = set()
    for start, gram in enumerate(zip(*(lower[start:] for start in range(GRAM)), strict=False)):
        if gram in seen:
            repeated.update(range(start, start + GRAM))
        seen.add(gram)
    rest = 1.0 - sum(len(lower[number]) for number in repeated) / max(1, sum(map(len, lower)))
    return min(BAD, rest) if repeats_itself(text) else rest
