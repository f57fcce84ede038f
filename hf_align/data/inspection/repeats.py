"""Rows that say again what an earlier one said, or its opposite: by hashes of prompts and responses, in arrays."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from hf_align.collators.rows import key_of
from hf_align.data.inspection.preferences import Preferences
from hf_align.data.inspection.records import Record
from hf_align.data.shingles import mix

Numbers = np.ndarray
"""int64 `[N]`."""
_ONE = np.uint64(1)


class RowKeys:
    """Hashes of each row's prompt and responses, and its order of them: 38 bytes a pair."""

    def __init__(self) -> None:
        self.preferences = Preferences(named=False)
        self._prompts, self._responses = array("q"), array("q")

    def add(self, record: Record) -> None:
        """Take in a row that could be read."""
        if record.read is not None:
            self.preferences.add(record)
            self._prompts.append(key_of(record.read.prompt))
            self._responses.extend(map(key_of, record.read.responses))

    @property
    def rows(self) -> Numbers:
        """`[R]` row numbers."""
        return self.preferences.rows

    @property
    def prompts(self) -> np.ndarray:
        """uint64 `[R]` hashes of the prompts."""
        return np.frombuffer(self._prompts, np.uint64)

    @property
    def responses(self) -> np.ndarray:
        """uint64 `[N]` hashes of the responses, one row's after another's."""
        return np.frombuffer(self._responses, np.uint64)

    @property
    def starts(self) -> Numbers:
        """`[R + 1]` where each row's responses begin."""
        return np.concatenate([[0], np.cumsum(self.preferences.counts, dtype=np.int64)])

    def combine(self, values: np.ndarray) -> np.ndarray:
        """Sum of the hashes of each row's values, uint64 `[N]` to `[R]`; their order doesn't count."""
        return np.add.reduceat(mix(values), self.starts[:-1]) if len(self.rows) else np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Comparisons:
    """What rows say about two responses of a prompt, by row.

    Attributes:
        places: `[C]` places of the rows in `RowKeys`, ascending.
        pairs: uint64 `[C]` hashes of prompt and both responses in either order, with a last bit of 0.
        ways: uint64 `[C]` 0 or 1: which of both is better.
    """

    places: Numbers
    pairs: np.ndarray
    ways: np.ndarray

    @property
    def said(self) -> np.ndarray:
        """uint64 `[C]` equal where two rows say the same."""
        return self.pairs | self.ways


@dataclass(frozen=True)
class Repeats:
    """Places of rows in `RowKeys`.

    Attributes:
        copies: Rows of which an earlier one has the same prompt, responses and preference, in the same columns.
        copied: Those earlier rows.
        swapped: Rows that say what an earlier one says with the responses in other columns.
        unswapped: Those earlier rows.
        opposed: Rows of which another has the opposite preference.
        opposite_earlier: Number of rows of which an earlier one has it.
        opposed_pairs: Number of pairs of responses with both preferences.
        clear_pairs: Number of those of which at least twice as many rows hold one preference as the other.
    """

    copies: Numbers
    copied: Numbers
    swapped: Numbers
    unswapped: Numbers
    opposed: Numbers
    opposite_earlier: int
    opposed_pairs: int
    clear_pairs: int


def compare(keys: RowKeys) -> Comparisons:
    """All comparisons of two responses in the rows; a row without any says that all are equally good."""
    parts = [(np.zeros(0, np.int64),) * 3, *keys.preferences.ordered()]
    places, better, worse = (np.concatenate(column) for column in zip(*parts, strict=True))
    pairs = mix(mix(keys.prompts[places]) + mix(keys.responses[better]) + mix(keys.responses[worse]))
    ways = (keys.responses[better] < keys.responses[worse]).astype(np.uint64)
    tied = np.setdiff1d(np.arange(len(keys.rows)), places)
    ties = mix(mix(keys.prompts[tied]) + keys.combine(keys.responses)[tied] + _ONE)
    places = np.concatenate([places, tied])
    order = np.argsort(places, kind="stable")
    pairs, ways = np.concatenate([pairs, ties]), np.concatenate([ways, np.zeros(len(tied), np.uint64)])
    return Comparisons(places[order], pairs[order] & ~_ONE, ways[order])


def find_repeats(keys: RowKeys) -> Repeats:
    """Rows that repeat or contradict others.

    A ranking repeats others if each of its comparisons stands in an earlier row; it contradicts one if any comparison
    stands the other way round in it.
    """
    each = compare(keys)
    values, first, inverse = np.unique(each.said, return_index=True, return_inverse=True)
    earliest = each.places[first][inverse]
    starts = np.flatnonzero(np.diff(each.places, prepend=-1))
    again = np.logical_and.reduceat(earliest < each.places, starts) if len(starts) else np.zeros(0, bool)
    repeated, partners = each.places[starts][again], earliest[starts][again]
    # In the same columns: the same hash with the places of the responses in it.
    within = np.arange(len(keys.responses)) - np.repeat(keys.starts[:-1], keys.preferences.counts)
    listed = keys.combine(mix(keys.responses) + within.astype(np.uint64))
    sets = keys.combine(keys.responses)
    swapped = (sets[repeated] == sets[partners]) & (listed[repeated] != listed[partners])
    copied = earliest[np.isin(each.places, repeated[~swapped])]

    other = each.said ^ _ONE
    at = np.minimum(np.searchsorted(values, other), max(0, len(values) - 1))
    opposed = values[at] == other
    earlier = opposed & (each.places[first][at] < each.places)
    pairs, pair = np.unique(each.pairs[opposed], return_inverse=True)
    ways = np.bincount(pair, weights=each.ways[opposed], minlength=len(pairs))
    most = np.maximum(ways, np.bincount(pair, minlength=len(pairs)) - ways)
    return Repeats(
        repeated[~swapped],
        np.setdiff1d(copied, repeated[~swapped]),
        repeated[swapped],
        np.setdiff1d(partners[swapped], repeated[swapped]),
        np.unique(each.places[opposed]),
        len(np.unique(each.places[earlier])),
        len(pairs),
        int((3 * most >= 2 * np.bincount(pair, minlength=len(pairs))).sum()),
    )
