"""Which rows stay: one of those that say the same, none that an evaluation set has, no category too often."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np

from hf_align.data.minhash import MinHash
from hf_align.errors import UserError

NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")


def exact_key(text: str) -> str:
    """A text as it counts in a comparison: without case, compatibility forms and runs of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def first_of_each(keys: Sequence[str]) -> dict[int, int]:
    """Numbers of the rows that repeat an earlier one, with that one."""
    first: dict[str, int] = {}
    return {number: first[key] for number, key in enumerate(keys) if first.setdefault(key, number) != number}


def near_repeats(texts: Sequence[str], scores: Sequence[float], threshold: float) -> dict[int, int]:
    """Rows that say almost the same as a better one that stays.

    The best row stays, then each next one unless it is near one that stays: so every dropped row is itself near a
    kept one, however long a chain of neighbours is, and the result doesn't depend on the order of the rows. Of equally
    good rows the longer one stays. Texts with different numbers are never near.

    Args:
        texts: The rows' texts.
        scores: The rows' quality.
        threshold: Jaccard similarity from which two texts are near, by the pieces of `hf_align.data.shingles`.

    Returns:
        Numbers of the rows to drop, each with the one that stays.
    """
    order = sorted(range(len(texts)), key=lambda number: (-scores[number], -len(texts[number]), texts[number]))
    ordered = [texts[number] for number in order]  # the better of two has the smaller place
    numbers = [NUMBERS.findall(text) for text in ordered]
    sketches = MinHash(threshold)
    sketches.add(ordered)
    dropped: dict[int, int] = {}
    while True:  # again among those that are left: a text is compared with a limited number of others at a time
        left = np.array([place for place in range(len(order)) if place not in dropped], np.int64)
        better: dict[int, list[int]] = defaultdict(list)
        for a, b in sketches.near_pairs(lambda places: [ordered[place] for place in places], left).tolist():
            if numbers[a] == numbers[b]:
                better[b].append(a)
        new: dict[int, int] = {}
        for place in sorted(better):
            if stays := [other for other in better[place] if other not in new]:
                new[place] = min(stays)
        if not new:
            return {order[place]: order[stays] for place, stays in dropped.items()}
        dropped |= new


def limit_of(counts: Iterable[int], most: int | None, ratio: float | None) -> int:
    """Most rows of a category: a number, or a multiple of the smallest category."""
    return most if most is not None else math.floor((1.0 if ratio is None else ratio) * min(counts))


def over_limit(
    categories: Sequence[str], texts: Sequence[str], most: int | None, ratio: float | None, seed: int
) -> dict[int, str]:
    """Rows beyond the limit of their category; which ones, a hash of seed and text decides, not the order.

    Args:
        categories: Each row's.
        texts: Each row's.
        most: Rows of a category at most.
        ratio: Instead, a multiple of the smallest category's rows.
        seed: Draws other rows.

    Returns:
        Numbers of the rows to drop, with their category.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for number, category in enumerate(categories):
        rows[category].append(number)
    limit = limit_of(map(len, rows.values()), most, ratio)

    def draw(number: int) -> bytes:
        return hashlib.blake2b(f"{seed}\n{texts[number]}".encode(), digest_size=16).digest()

    return {number: name for name, each in rows.items() for number in sorted(each, key=draw)[limit:]}


def check_balance(balance: str | None, most: int | None, ratio: float | None) -> None:
    """Refuse limits that contradict each other, or that nothing is limited by.

    Raises:
        UserError: Names the argument.
    """
    if balance is None and (most is not None or ratio is not None):
        raise UserError(
            f"{'ratio' if most is None else 'most'} limits the rows of a category: name its column by balance."
        )
    if most is not None and ratio is not None:
        raise UserError("most and ratio both limit the rows of a category; give one of them.")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise UserError(f"most is {most!r}; give a number of rows from 1.")
    if ratio is not None and not (isinstance(ratio, int | float) and 1 <= ratio < math.inf):
        raise UserError(f"ratio is {ratio!r}; give a number from 1: a multiple of the smallest category's rows.")


def check_column(column: str, columns: Sequence[str], name: str, argument: str) -> None:
    """Refuse the name of a column that the rows don't have.

    Raises:
        UserError: Lists the columns, and the nearest.
    """
    if column not in columns:
        near = get_close_matches(column, columns, n=1)
        meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(columns)}"
        raise UserError(f"{argument}: {name} has no column {column!r}; {meant}")
