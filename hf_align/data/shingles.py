"""Texts as sets of short pieces, by which near duplicates are told: normalised, cut and hashed many at a time.

A text is normalised to NFKC and lower case, without punctuation, with single spaces. Its pieces are all runs of 5
characters; in Chinese, Japanese and Korean, whose characters say more, runs of 2. A text shorter than that is one
piece, so that short texts are alike only if they are equal. Symbols and emoji count as letters, and where a text is
nothing but punctuation, so does that.

`hf_align.data.duplicates` cuts the sentences of the embedded data set, whose splits depend on it: by words alone, and
without that set's placeholders."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

SIZE = 5
"""Characters of a piece ..."""
CJK_SIZE = 2
"""... and of one that begins with a Chinese, Japanese or Korean character."""
_CJK = ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF))
_LAST = 0x20000
"""From here on all characters are taken for Chinese, which most are."""
BASE = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of polynomial hashes."""
_SPACE = 32


class Letters(NamedTuple):
    """Normalised texts, one after another, each followed by a space unless it is empty.

    Attributes:
        codes: Code points, uint32 `[C]`.
        starts: Where each text starts, int64 `[N + 1]`.
    """

    codes: np.ndarray
    starts: np.ndarray

    def text(self, number: int) -> str:
        """One of the normalised texts."""
        start, stop = self.starts[number : number + 2]
        return self.codes[start : max(start, stop - 1)].tobytes().decode("utf-32-le", "surrogatepass")


class Hashes(NamedTuple):
    """Hashed pieces of texts, one text after another.

    Attributes:
        values: Hashes, uint64 `[S]`.
        starts: Where each text's begin, int64 `[N + 1]`.
    """

    values: np.ndarray
    starts: np.ndarray


def normalise_all(texts: Sequence[str]) -> Letters:
    """Normalise texts: about 10 ns a character in ASCII, since it's done on arrays."""
    folded = [(text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold() for text in texts]
    lengths = np.array([len(text) + 1 for text in folded], np.int64)
    joined = "".join(f"{text} " for text in folded)
    if joined.isascii():
        codes = np.frombuffer(joined.encode(), np.uint8)
    else:
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
    begins = np.concatenate([[0], np.cumsum(lengths)])
    letter = _sizes()[np.minimum(codes, _LAST) if codes.itemsize > 1 else codes] > 0
    bare = np.repeat(per_text(letter, begins) == 0, lengths)
    if bare.any():  # nothing but punctuation: keep that
        letter[bare] = [not chr(code).isspace() for code in codes[bare]]
    # Of each run of other characters the first stays, as a space, if a letter is before it.
    stays = letter.copy()
    stays[1:] |= letter[:-1]
    starts = np.concatenate([[0], np.cumsum(per_text(stays, begins))])
    return Letters(np.where(letter, codes, codes.dtype.type(_SPACE))[stays].astype(np.uint32), starts)


def shingles_of(letters: str) -> frozenset[str]:
    """The pieces of a normalised text; see `shingles`."""
    if letters.isascii():
        pieces = frozenset({letters[i : i + SIZE] for i in range(len(letters) - SIZE + 1)})
    else:
        sizes = _sizes()[np.minimum(np.array([*map(ord, letters)], np.uint32), _LAST)].tolist()
        sizes = [size or SIZE for size in sizes]
        pieces = frozenset(letters[i : i + size] for i, size in enumerate(sizes) if i + size <= len(letters))
    return pieces or frozenset((letters,) if letters else ())


def shingles(text: str) -> frozenset[str]:
    """The pieces of a text: runs of 5 characters of the normalised text, of 2 from a CJK character on.

    A shorter text is one piece, an empty one has none.

    Example:
        >>> from hf_align.data.shingles import shingles
        >>> sorted(shingles("A joy!")), sorted(shingles("很好看"))
        (['a joy'], ['好看', '很好'])
    """
    return shingles_of(normalise_all([text]).text(0))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection by that of the union, in [0, 1]; 0 when both are empty."""
    shared = len(a & b)
    return shared / max(1, len(a) + len(b) - shared)


def hash_shingles(letters: Letters) -> Hashes:
    """64-bit hashes of each normalised text's pieces, repeated ones included."""
    codes, starts = letters
    sizes = _sizes()[np.minimum(codes, _LAST)]
    sizes[sizes == 0] = SIZE  # spaces, and punctuation where there is nothing else
    ends = np.maximum(starts[1:] - 1, starts[:-1])  # without the space
    whole = np.arange(len(codes)) + sizes <= np.repeat(ends, np.diff(starts))
    wide = np.concatenate([codes, np.zeros(SIZE, np.uint32)]).astype(np.uint64)
    values = wide[: len(codes)]
    for k in range(1, SIZE):
        values = values * BASE + wide[k : k + len(codes)]
    cjk = np.flatnonzero(sizes == CJK_SIZE)
    values[cjk] = wide[cjk] * BASE + wide[cjk + 1]
    counts = per_text(whole, starts)
    short = np.flatnonzero((counts == 0) & (ends > starts[:-1]))  # one piece: all of it, at most four characters
    for number in short:
        piece = np.zeros(SIZE, np.uint64)
        piece[: ends[number] - starts[number]] = codes[starts[number] : ends[number]]
        values[starts[number]] = np.bitwise_xor.reduce(mix(piece + np.arange(1, SIZE + 1, dtype=np.uint64) * BASE))
    whole[starts[short]] = True
    return Hashes(mix(values[whole]), np.concatenate([[0], np.cumsum(per_text(whole, starts))]))


def mix(values: np.ndarray) -> np.ndarray:
    """Spread uint64 values over all bits (the finaliser of splitmix64, Steele, Lea and Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def per_text(marks: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Number of marked characters of each text."""
    return np.diff(np.searchsorted(np.flatnonzero(marks), starts))


def cjk_at(codes: np.ndarray) -> np.ndarray:
    """Which code points are Chinese, Japanese or Korean characters."""
    return _sizes()[np.minimum(codes, _LAST)] == CJK_SIZE


@cache
def _sizes() -> np.ndarray:
    """By code point: 0 for what separates words, else the number of characters of a piece that begins with it."""
    kinds = [unicodedata.category(chr(code))[0] for code in range(_LAST)]
    sizes = np.array([SIZE if kind in "LMNS" else 0 for kind in kinds] + [CJK_SIZE], np.uint8)
    for first, last in _CJK:
        sizes[first : last + 1][sizes[first : last + 1] > 0] = CJK_SIZE
    return sizes
