"""Texts that repeat themselves, as a model does that has lost the thread.

The measures are those of Rae et al. (2021, "Scaling Language Models", table A1): the share of a text's characters in
its most frequent n-gram (n = 2 to 4), in n-grams that stood there before (n = 5 to 10), and in lines that did. Their
thresholds hold for documents of 50 words or more, which is what that paper keeps. A text of one sentence exceeds them
by one turn of phrase ("a little faster, a little louder"): below 50 words the most frequent n-gram has to fill half of
the text, and phrases of five words or more that stood there before four tenths. At any length an n-gram counts from
its third occurrence, and a text is degenerate if it ends in a loop, or holds a word that is one.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import islice, pairwise

DOCUMENT = 50
"""Words from which the paper's thresholds hold."""
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
"""Largest share of the characters in the most frequent n-gram, by n."""
AGAIN = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Largest share of the characters in n-grams that stood there before, by n."""
LINES, LINE_CHARACTERS = 0.30, 0.20
"""Largest share of lines that stood there before, and of the characters in them."""
SHORT_TOP, SHORT_AGAIN = 0.5, 0.4
OCCURRENCES = 3
LOOP_WORDS, LOOP_TIMES, LOOP_UNIT = 8, 3, 10
"""Words of a loop at a text's end, how often its unit stands there, and the longest unit in words."""
LONG_WORD = 40

_SPACES = str.maketrans(dict.fromkeys(string.punctuation, " "))
_LETTERS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
"""Letters that count as words: Chinese and Japanese have no spaces between words."""
_LOOP = re.compile(r"(\w{1,8}?)\1{3,}")


def repeats_itself(text: str) -> bool:
    """Whether a text is degenerate by repetition; see above for the measures.

    Example:
        >>> from hf_align.data.inspection.repetition import repeats_itself
        >>> repeats_itself("The film is good and the cast is good and the plot is good.")
        False
        >>> repeats_itself("The film is good. " * 4)
        True
    """
    if not text.isascii():
        text = _LETTERS.sub(r" \g<0> ", text)
    words = text.casefold().translate(_SPACES).split()
    if not words:
        return False
    longest = max(map(len, words))
    if longest > LONG_WORD and any(_is_loop(word) for word in words if len(word) > LONG_WORD):
        return True
    again = len(words) - len(set(words))
    if again <= max(LOOP_TIMES, len(words) / 5 if len(words) < DOCUMENT else 0):  # less than any measure needs
        return False
    pairs = Counter(pairwise(words))  # what stands three times has a pair that does; what stands twice, of five, four
    if max(pairs.values(), default=0) >= OCCURRENCES and (_ends_in_loop(words) or _one_phrase_exceeds(words)):
        return True
    twice = len(words) - 1 - len(pairs)
    return (twice >= min(AGAIN) - 1 and _phrases_exceed(words)) or ("\n" in text and _repeats_lines(text))


def _is_loop(word: str) -> bool:
    """Whether a word without end consists half of a few letters again and again."""
    return any(len(match[0]) > len(word) / 2 for match in _LOOP.finditer(word))


def _ends_in_loop(words: Sequence[str]) -> bool:
    for unit in range(1, min(LOOP_UNIT, len(words) // LOOP_TIMES) + 1):
        length = unit
        while length < len(words) and words[-length - 1] == words[-length - 1 + unit]:
            length += 1
        if length >= max(LOOP_WORDS, LOOP_TIMES * unit):
            return True
    return False


def _one_phrase_exceeds(words: Sequence[str]) -> bool:
    """Whether the most frequent n-gram fills more of a text than it may."""
    total, short = sum(map(len, words)), len(words) < DOCUMENT
    for n, most in TOP.items():
        gram, count = Counter(_grams(words, n)).most_common(1)[0] if len(words) >= n else ((), 0)
        if count < OCCURRENCES:
            return False  # longer ones are no more frequent
        if count * sum(map(len, gram)) / total >= (SHORT_TOP if short else most):
            return True
    return False


def _phrases_exceed(words: Sequence[str]) -> bool:
    """Whether n-grams that stood there before fill more of a text than they may."""
    total, short = sum(map(len, words)), len(words) < DOCUMENT
    for n, most in AGAIN.items():
        places = _again(list(_grams(words, n)))
        if not places:
            return False  # nor are longer ones
        covered = {place + k for place in places for k in range(n)}
        if sum(len(words[place]) for place in covered) / total >= (SHORT_AGAIN if short else most):
            return True
    return False


def _repeats_lines(text: str) -> bool:
    """Whether too many lines of three words or more stood there before; brackets and table rules aren't counted."""
    lines = [line for line in map(str.strip, text.splitlines()) if len(line.split()) >= 3]
    again = _again(lines)
    if len(again) < OCCURRENCES - 1:
        return False
    characters = sum(len(lines[place]) for place in again) / sum(map(len, lines))
    return len(again) / len(lines) >= LINES or characters >= LINE_CHARACTERS


def _grams(words: Sequence[str], n: int) -> zip[tuple[str, ...]]:
    return zip(*(islice(words, start, None) for start in range(n)), strict=False)


def _again(items: Sequence[Hashable]) -> list[int]:
    """Places of items that stood there before."""
    if len(set(items)) == len(items):
        return []
    seen: set[Hashable] = set()
    return [place for place, item in enumerate(items) if item in seen or seen.add(item)]
