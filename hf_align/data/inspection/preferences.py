"""Preferences of many rows in flat arrays: which response is better than which, of what is kept by hash alone."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hf_align.collators.rankings import Ranking
from hf_align.data.inspection.records import Record

UNRANKED = 32767
"""Rank of responses that were shown and are below all ranked ones."""


class Preferences:
    """Responses of all rows one after another, each with its rank in its row.

    Args:
        named: Whether to keep a hash of prompt and response, by which a response is known in other rows.
    """

    def __init__(self, *, named: bool) -> None:
        self._named = named
        self._rows, self._counts, self._ranks, self._nodes = array("q"), array("H"), array("h"), bytearray()

    def add(self, record: Record) -> None:
        """Take in a row that could be read."""
        self._rows.append(record.number)
        self._counts.append(len(record.responses))
        self._ranks.extend(ranks_in(record))
        if self._named:
            start = blake2b(record.prompt.encode(errors="surrogatepass") + b"\0", digest_size=8)
            for text in record.responses:
                node = start.copy()
                node.update(text.encode(errors="surrogatepass"))
                self._nodes += node.digest()

    @property
    def rows(self) -> NDArray[np.int64]:
        """`[R]` row numbers."""
        return np.frombuffer(self._rows, np.int64)

    @property
    def counts(self) -> NDArray[np.uint16]:
        """`[R]` number of responses of each."""
        return np.frombuffer(self._counts, np.uint16)

    @property
    def ranks(self) -> NDArray[np.int16]:
        """`[N]` rank of each response, 0 for the best of a row; equal ones are tied."""
        return np.frombuffer(self._ranks, np.int16)

    @property
    def nodes(self) -> NDArray[np.uint64]:
        """`[N]` hash of prompt and response."""
        return np.frombuffer(self._nodes, np.uint64)

    def ordered(self, among: NDArray[np.bool_] | None = None) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
        """Pairs of responses of which one is better, in several parts.

        Args:
            among: `[R]` the rows to take. Default: all.

        Yields:
            `[P]` place of the row in `rows`, and `[P]` places of the better and the worse response in `ranks`.
        """
        counts = self.counts.astype(np.intp)
        ends = np.cumsum(counts)
        for count in np.unique(counts):
            rows = np.flatnonzero((counts == count) if among is None else (counts == count) & among)
            start = ends[rows] - count
            for one, two in combinations(range(int(count)), 2):
                lead = self.ranks[start + two] - self.ranks[start + one].astype(np.int32)
                first, second = (start + np.where(lead >= 0, a, b) for a, b in ((one, two), (two, one)))
                decided = lead != 0
                yield rows[decided], first[decided], second[decided]


def ranks_in(record: Record) -> Sequence[int]:
    """Rank of each response of a row; of a pair (0, 1), turned round by a label below .5, (0, 0) at .5."""
    if isinstance(record.read, Ranking):
        return [UNRANKED if rank < 0 else rank for rank in record.read.ranks]
    label = record.values.get("label")
    if label is None or label > 0.5:
        return 0, 1
    return (1, 0) if label < 0.5 else (0, 0)
