"""Exact search for near duplicates among texts.

Two texts are near duplicates when the Jaccard similarity of their character 5-gram sets reaches a threshold. Prefix
filtering (Bayardo et al., 2007, "Scaling Up All Pairs Similarity Search") misses no such pair while only about one in
two hundred pairs is compared."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

NEAR_DUPLICATE = 0.6
"""Jaccard similarity of 5-grams from which two texts count as near duplicates (one word changed in ten is about .8)."""


MENTION = "@anonymous"


LINK = "http://url_removed"


_SHINGLE = 5


def normalise(text: str) -> str:
    """Lower-case `text` and keep only its words, so that case, punctuation, spacing and placeholders don't count."""
    text = text.lower().replace(MENTION, " ").replace(LINK, " ")
    return " ".join(re.findall(r"\w+", text))


def shingles(text: str) -> frozenset[str]:
    """The character 5-grams of the normalised text; a shorter text is one shingle, an empty one has none."""
    letters = normalise(text)
    starts = range(max(1, len(letters) - _SHINGLE + 1)) if letters else ()
    return frozenset(letters[i : i + _SHINGLE] for i in starts)


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of two texts' shingles, in [0, 1]; 0 when both are empty."""
    first, second = shingles(a), shingles(b)
    return len(first & second) / max(1, len(first | second))


def near_duplicates(
    texts: Sequence[str], *, threshold: float = NEAR_DUPLICATE, cut: Callable[[str], frozenset[str]] = shingles
) -> list[tuple[int, int]]:
    """All pairs of texts whose `similarity` is at least `threshold`.

    Args:
        texts: the texts to compare.
        threshold: Jaccard similarity in (0, 1].
        cut: makes the set of a text.

    Returns:
        Index pairs `(i, j)` with `i < j`, sorted. Texts with an empty set, those without a word, are in no pair.
    """
    sets = [cut(text) for text in texts]
    frequency = Counter(shingle for each in sets for shingle in each)
    # Rarest first: two similar sets must share one of their first few shingles in this order.
    rarest_first = [sorted(each, key=lambda shingle: (frequency[shingle], shingle)) for each in sets]
    containing: defaultdict[str, list[int]] = defaultdict(list)
    pairs: list[tuple[int, int]] = []
    for i in sorted((i for i, each in enumerate(sets) if each), key=lambda i: len(sets[i])):
        size = len(sets[i])
        probe = rarest_first[i][: size - math.ceil(threshold * size) + 1]
        for j in {j for shingle in probe for j in containing[shingle] if len(sets[j]) >= threshold * size}:
            shared = len(sets[i] & sets[j])
            if shared >= threshold * (size + len(sets[j]) - shared):
                pairs.append((min(i, j), max(i, j)))
        # Later texts are at least as long, so fewer of this one's shingles have to be indexed.
        overlap = math.ceil(2 * threshold / (1 + threshold) * size)
        for shingle in rarest_first[i][: size - overlap + 1]:
            containing[shingle].append(i)
    return sorted(pairs)


def connected(n: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """Connected components of `n` items.

    Args:
        n: number of items.
        links: pairs of items that belong together.

    Returns:
        For each item the smallest item of its component.
    """
    return components(n, np.array(links, dtype=int).reshape(-1, 2)).tolist()


def components(n: int, links: np.ndarray) -> np.ndarray:
    """As `connected`, for links in an array, int `[L, 2]`; returns int `[n]`."""
    first, second = links.T
    graph = csr_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    _, smallest = np.unique(labels, return_index=True)
    return smallest[labels]
