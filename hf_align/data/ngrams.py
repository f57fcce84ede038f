"""Runs of words as hashes, to find a text inside of others."""

from functools import cache

import numpy as np

from hf_align.data.shingles import BASE, Hashes, Letters, cjk_at, mix, per_text

WORDS = 8
"""Words of a run, as Chowdhery et al. (2022, "PaLM") took them to find evaluation sets in training data."""
_INVERSE = np.uint64(pow(int(BASE), -1, 2**64))


def hash_ngrams(letters: Letters, size: int = WORDS) -> Hashes:
    """64-bit hashes of all runs of `size` words of normalised texts.

    Chinese, Japanese and Korean characters count as words. A shorter text is one run, which is in no longer text.

    Args:
        letters: The texts, normalised.
        size: Words of a run.

    Returns:
        Hashes, repeated ones included.
    """
    words = hash_words(letters)
    counts = np.diff(words.starts)
    left = np.repeat(words.starts[1:], counts) - np.arange(len(words.values))  # words from here to the text's end
    wide = np.concatenate([words.values, np.zeros(size, np.uint64)])
    values = np.zeros(len(words.values), np.uint64)
    for k in range(size):
        values = values * BASE + wide[k : k + len(values)] * (left > k)
    whole = left >= size
    whole[words.starts[:-1][(counts > 0) & (counts < size)]] = True
    return Hashes(mix(values[whole]), np.concatenate([[0], np.cumsum(per_text(whole, words.starts))]))


def hash_words(letters: Letters) -> Hashes:
    """64-bit hashes of the words of normalised texts, in their order."""
    codes, starts = letters
    letter, cjk = codes != 32, cjk_at(codes)
    alone = cjk | ~letter
    begins = letter & (cjk | np.concatenate([[True], alone[:-1]]))
    bounds = np.flatnonzero(begins | ~letter)
    first = np.flatnonzero(begins[bounds])
    start, stop = bounds[first], bounds[np.minimum(first + 1, len(bounds) - 1)]
    # Sums of codes times powers of the position; dividing by the first power makes a word the same everywhere.
    powers, divisors = _powers(max(1, len(codes)).bit_length())
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * powers[: len(codes)], out=sums[1:])
    values = (sums[stop] - sums[start]) * divisors[start]
    return Hashes(mix(values), np.concatenate([[0], np.cumsum(per_text(begins, starts))]))


@cache
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `2**bits` powers of `BASE`, and what undoes them."""
    up, down = (np.cumprod(np.concatenate([[np.uint64(1)], np.full(2**bits - 1, each)])) for each in (BASE, _INVERSE))
    return up, down
