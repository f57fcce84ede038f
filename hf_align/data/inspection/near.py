"""Near duplicates among the prompts, the responses and the rows of a data set, from sketches of their texts."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hf_align.data.duplicates import components
from hf_align.data.inspection.repeats import Numbers, RowKeys
from hf_align.data.minhash import NEAR, WINDOW, Clusters, Fetch, MinHash, clusters, similarities
from hf_align.data.shingles import mix

MOST = 20_000
"""Texts, or rows, that are compared with the one that they resemble, at most: each has to be read again."""


class NearTexts:
    """Texts at all places where they stand, prompts by row or responses one row's after another's.

    Args:
        sketches: Of the texts, in this order.
        keys: uint64 `[N]` hashes, equal for equal texts.
        fetch: Texts by their places.

    Attributes:
        firsts: `[N]` the first place at which each place's text stands.
        candidates: Pairs of such first places whose texts are probably near.
    """

    def __init__(self, sketches: MinHash, keys: np.ndarray, fetch: Fetch) -> None:
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        self._fetch = fetch
        self.firsts: Numbers = first[inverse]
        self.candidates = sketches.candidates(np.sort(first))

    @cached_property
    def groups(self) -> Numbers:
        """`[N]` a number for each place, equal where texts are linked by candidates."""
        return components(len(self.firsts), self.candidates)[self.firsts]

    def similarities(self, pairs: np.ndarray) -> np.ndarray:
        """Jaccard similarity of the texts at two places, by comparing them: int64 `[P, 2]` to float64 `[P]`."""
        firsts = np.sort(self.firsts[pairs], axis=1)
        different = firsts[:, 0] != firsts[:, 1]
        result = np.ones(len(pairs))
        compared, inverse = np.unique(firsts[different], axis=0, return_inverse=True)
        result[different] = similarities(compared, self._fetch)[inverse.ravel()]
        return result

    def clusters(self) -> Clusters:
        """Different texts that are near duplicates of one, by their first places."""
        return clusters(len(self.firsts), self.candidates, lambda pairs: self.similarities(pairs) >= NEAR, most=MOST)


def near_rows(keys: RowKeys, left_out: Numbers, prompts: NearTexts, responses: NearTexts) -> Clusters:
    """Rows whose prompts and responses are near, with the responses in the same order of preference.

    Args:
        keys: Hashes and preferences of the rows.
        left_out: Places of rows that repeat others exactly.
        prompts: The rows' prompts.
        responses: Their responses.

    Returns:
        Clusters of places of rows. Rows of the same texts are in none together: they are repeated or contradicted.
    """
    ranks = keys.preferences.ranks.astype(np.uint64)
    alike = mix(prompts.groups.astype(np.uint64)) + keys.combine(mix(responses.groups.astype(np.uint64)) + ranks)
    texts = mix(keys.prompts) + keys.combine(keys.responses)
    rows = np.setdiff1d(np.arange(len(keys.rows)), left_out)
    rows = rows[np.argsort(alike[rows], kind="stable")]
    pairs = [np.zeros((0, 2), np.int64)]
    for shift in range(1, WINDOW + 1):
        both = np.stack([rows[:-shift], rows[shift:]], axis=1)
        both = both[alike[both[:, 0]] == alike[both[:, 1]]]
        if not len(both):
            break
        pairs.append(both[texts[both[:, 0]] != texts[both[:, 1]]])
    compare = _RowComparison(keys, prompts, responses)
    return clusters(len(keys.rows), np.concatenate(pairs), compare.near, most=MOST)


class _RowComparison:
    """Compares rows response by response, the best of one with the best of the other."""

    def __init__(self, keys: RowKeys, prompts: NearTexts, responses: NearTexts) -> None:
        self._prompts, self._responses = prompts, responses
        self._starts, self._counts = keys.starts, keys.preferences.counts.astype(np.int64)
        owner = np.repeat(np.arange(len(keys.rows)), self._counts)
        self._order = np.lexsort((responses.groups, keys.preferences.ranks, owner))

    def near(self, pairs: np.ndarray) -> np.ndarray:
        """Whether rows are near: places int64 `[P, 2]` to bool `[P]`."""
        result = self._prompts.similarities(pairs) >= NEAR
        pairs = pairs[result]
        if not len(pairs):
            return result
        counts = self._counts[pairs[:, 0]]
        starts = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(starts, counts)
        sides = self._order[np.repeat(self._starts[pairs], counts, axis=0) + within[:, None]]
        same = self._responses.similarities(sides)
        near = np.minimum.reduceat(same, starts) >= NEAR
        # Where the two responses of a pair are near each other as well, the rows may rather say the opposite.
        groups = self._responses.groups[sides[:, 0]]
        open_pairs = np.flatnonzero((counts == 2) & (groups[starts] == groups[np.minimum(starts + 1, len(groups) - 1)]))
        first = starts[open_pairs]
        crossed = [np.stack([sides[first + a, 0], sides[first + 1 - a, 1]], axis=1) for a in (0, 1)]
        other = sum(self._responses.similarities(each) for each in crossed)
        near[open_pairs] &= same[first] + same[first + 1] > other
        result[result] = near
        return result
