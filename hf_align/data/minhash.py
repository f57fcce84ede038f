"""Near duplicates among many texts: a sketch of each text is kept, likely pairs are looked for and verified.

Each text becomes a sketch of 48 bytes, a byte for each of 48 MinHash values of its pieces (`hf_align.data.shingles`):
two texts' values are equal with a probability that is the Jaccard similarity of their sets (Broder, 1997, "On the
resemblance and containment of documents"). The values are those of fast similarity sketching (Dahlgaard, Knudsen and
Thorup, 2017): each piece fills one of the 48 places, and the places that stay empty are filled from all pieces, so that
a long text costs a hash a piece and a short one still has 48 independent values. A byte of a value is enough (Li and
König, 2010, "b-Bit Minwise Hashing").

Pairs that agree in all bytes of one band are candidates; those whose whole sketches agree too little are left out, and
the texts of the others are compared exactly. So what is returned is similar for certain; what is missed depends on
chance, and the bands are chosen so that at the threshold 99.5% of all pairs become candidates."""

from __future__ import annotations

import importlib
import importlib.util
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_align.data.duplicates import components
from hf_align.data.shingles import Hashes, hash_shingles, jaccard, mix, normalise_all, shingles_of

NEAR = 0.8
"""Jaccard similarity from which texts count as near duplicates: of a sentence about one word in ten may differ."""
PLACES = 48
"""MinHash values of a text."""
BAND_SIZES = (4, 3, 2)
"""Values of a band, the most selective first; with each the bands fill the places."""
FOUND = 0.995
"""Probability with which a pair at the threshold shares a band, at least."""
WINDOW = 16
"""Texts that one is compared with in a band, at most, besides those before it: a band shared by thousands would
otherwise be compared in millions of pairs."""
PARTNERS = 16
"""Default of `MinHash`'s argument."""

_ROUNDS = 4
_EMPTY = np.uint32(0xFFFFFFFF)
_BATCH = 50_000  # characters, pieces or pairs at a time: their arrays fit into a processor's cache
_KEPT_SHINGLES = 100_000  # about 10 MB

Fetch = Callable[[Sequence[int]], Sequence[str]]
"""Texts by their numbers."""


class MinHash:
    """Sketches of texts that are added in batches, 48 bytes each.

    Args:
        threshold: Jaccard similarity that is looked for, in (0, 1]. Below .6 fewer pairs are found than promised.
        partners: Candidates of a text, about, after which it is only compared with texts that have fewer: a crowd of
            similar texts would otherwise be compared in millions of pairs.
        rensa: Whether to make the sketches with the library rensa. Default: if it is installed.

    Example:
        >>> from hf_align.data.minhash import MinHash
        >>> texts = ["It rained all day in the north of Spain.", "It rained all day in the north of Spain!", "Sun."]
        >>> sketches = MinHash(threshold=0.8)
        >>> sketches.add(texts)
        >>> sketches.near_pairs(lambda numbers: [texts[number] for number in numbers]).tolist()
        [[0, 1]]
    """

    def __init__(self, threshold: float = NEAR, *, partners: int = PARTNERS, rensa: bool | None = None) -> None:
        self.threshold = threshold
        self._partners = partners
        self._rensa = has_rensa() if rensa is None else rensa
        self._sketch = _rensa_sketch if self._rensa else sketch
        self._size = next((size for size in BAND_SIZES if _found(threshold, size) >= FOUND), BAND_SIZES[-1])
        # Three standard deviations below what a pair at the threshold agrees in.
        spread = math.sqrt(PLACES * threshold * (1 - threshold))
        self._least = math.ceil(PLACES * threshold - 3 * spread)
        self._sketches = bytearray()  # grows without a second copy
        self._empty = array("I")
        self._tables: list[tuple[np.ndarray, np.ndarray]] | None = None  # of `matches`

    def __len__(self) -> int:
        return len(self._sketches) // PLACES

    def add(self, texts: Sequence[str]) -> None:
        """Take in texts; they are numbered from 0 in the order of all calls."""
        self._tables = None
        for part in parts(texts):
            hashes = hash_shingles(normalise_all(part))
            lengths = np.diff(hashes.starts)
            self._empty.extend((np.flatnonzero(lengths == 0) + len(self)).tolist())
            self._sketches += self._sketch(hashes).tobytes()

    def candidates(self, numbers: np.ndarray | None = None) -> np.ndarray:
        """Pairs of texts that are probably similar.

        Args:
            numbers: Texts to look among, ascending. Default: all.

        Returns:
            Pairs of numbers, int64 `[P, 2]`, the smaller first, sorted. Texts without a character are in none.
        """
        sketches = np.frombuffer(self._sketches, np.uint8).reshape(-1, PLACES)
        numbers = np.arange(len(self)) if numbers is None else np.asarray(numbers)
        numbers = numbers[~np.isin(numbers, np.frombuffer(self._empty, np.uint32))]
        found = np.zeros(0, np.int64)
        partners = np.zeros(len(self), np.int32)
        for band in range(PLACES // self._size):
            keys, order = self._sorted_band(sketches, numbers, band)
            new = [found]
            for shift in range(1, WINDOW + 1):
                same = np.flatnonzero(keys[:-shift] == keys[shift:])
                if not len(same):
                    break
                pairs = np.sort(np.stack([order[same], order[same + shift]], axis=1), axis=1)
                pairs = pairs[(partners[pairs] < self._partners).any(axis=1)]
                codes = pairs[:, 0] * len(self) + pairs[:, 1]
                fresh = ~_contains(found, codes)
                pairs, codes = pairs[fresh], codes[fresh]
                agree = np.concatenate(
                    [
                        self._agree(sketches[part[:, 0]], sketches[part[:, 1]])
                        for part in np.array_split(pairs, len(pairs) // _BATCH + 1)
                    ]
                )
                new.append(codes[agree])
                partners += np.bincount(pairs[agree].ravel(), minlength=len(self)).astype(np.int32)
            found = np.sort(np.concatenate(new))  # all different; np.unique would hash them, slowly
        return np.stack(np.divmod(found, max(1, len(self))), axis=1)

    def matches(self, texts: Sequence[str]) -> np.ndarray:
        """Pairs of these texts and of stored ones that are probably similar, without storing these.

        Returns:
            int64 `[P, 2]`, sorted: numbers of the texts, and of the stored texts, of which one text gets up to 16 a
            band.
        """
        stored = np.frombuffer(self._sketches, np.uint8).reshape(-1, PLACES)
        bands = range(PLACES // self._size)
        if self._tables is None:
            numbers = np.setdiff1d(np.arange(len(self)), np.frombuffer(self._empty, np.uint32))
            self._tables = [self._sorted_band(stored, numbers, band) for band in bands]
        others = MinHash(self.threshold, rensa=self._rensa)
        others.add(texts)
        sketches = np.frombuffer(others._sketches, np.uint8).reshape(-1, PLACES)
        found = [np.zeros((0, 2), np.int64)]
        for band, (keys, numbers) in zip(bands, self._tables, strict=True):
            wanted, asked = self._sorted_band(sketches, np.arange(len(others)), band)
            first = np.searchsorted(keys, wanted)
            for shift in range(WINDOW):
                same = first + shift < len(keys)
                same[same] = keys[first[same] + shift] == wanted[same]
                if not same.any():
                    break
                pairs = np.stack([asked[same], numbers[first[same] + shift]], axis=1)
                found.append(pairs[self._agree(sketches[pairs[:, 0]], stored[pairs[:, 1]])])
        return np.unique(np.concatenate(found), axis=0)

    def near_pairs(self, fetch: Fetch, numbers: np.ndarray | None = None) -> np.ndarray:
        """Pairs of texts whose Jaccard similarity is at least the threshold, by an exact comparison.

        Args:
            fetch: Texts by their numbers, some hundred at a time.
            numbers: As for `candidates`.

        Returns:
            Pairs of numbers, int64 `[P, 2]`, the smaller first, sorted.
        """
        pairs = self.candidates(numbers)
        return pairs[similarities(pairs, fetch) >= self.threshold]

    def _sorted_band(self, sketches: np.ndarray, numbers: np.ndarray, band: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys of a band, ascending, and the numbers that they belong to.

        Within a key they are sorted by the next band, so that in a large group the more similar are neighbours.
        """
        size = self._size
        words = np.zeros((len(numbers), 8), np.uint8)
        following = (band + 1) % (PLACES // size)
        words[:, 4 : 4 + size] = sketches[numbers, size * band : size * (band + 1)]
        words[:, :size] = sketches[numbers, size * following : size * (following + 1)]
        keys = words.view("<u8").ravel()
        order = np.argsort(keys, kind="stable")
        return (keys[order] >> np.uint64(32)).astype(np.uint32), numbers[order]

    def _agree(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Which rows of two arrays of sketches agree in enough bytes."""
        return (first == second).sum(axis=1) >= self._least


def sketch(hashes: Hashes) -> np.ndarray:
    """MinHash values of texts, a byte each.

    Args:
        hashes: Of N texts' pieces.

    Returns:
        uint8 `[N, 48]`; texts without a piece have equal rows.
    """
    values, starts = hashes
    lengths = np.diff(starts)
    least = np.full(len(lengths) * PLACES, _EMPTY, np.uint32)
    owner = np.repeat(np.arange(len(lengths)) * PLACES, lengths)
    for number in range(_ROUNDS):  # a later round's values are larger, so they fill empty places only
        if number:
            values = mix(values + np.uint64(1))
        place = (values >> np.uint64(32)) * np.uint64(PLACES) >> np.uint64(32)
        rank = (values & np.uint64(0x0FFFFFFF)).astype(np.uint32) | np.uint32(number << 28)
        np.minimum.at(least, owner + place.astype(np.int64), rank)
        open_texts = (least.reshape(-1, PLACES) == _EMPTY).any(axis=1)
        stays = np.repeat(open_texts, lengths)
        values, owner = values[stays], owner[stays]
        lengths = np.where(open_texts, lengths, 0)
    _fill(least, values, lengths)
    return (mix(least.astype(np.uint64)) >> np.uint64(56)).astype(np.uint8).reshape(-1, PLACES)


def _fill(least: np.ndarray, values: np.ndarray, lengths: np.ndarray) -> None:
    """Fill the empty places of texts with the least of all pieces' hashes, hashed with the place."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.flatnonzero((least == _EMPTY) & np.repeat(lengths > 0, PLACES))
    for part in np.array_split(places, max(1, int(lengths[places // PLACES].sum()) // _BATCH)):
        texts = part // PLACES
        counts = lengths[texts]
        ends = np.cumsum(counts)
        pieces = np.repeat(starts[texts] - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
        salt = (part % PLACES + 1).astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
        rank = mix(values[pieces] ^ np.repeat(salt, counts)) & np.uint64(0x0FFFFFFF)
        if len(part):
            least[part] = np.minimum.reduceat(rank, ends - counts).astype(np.uint32) | np.uint32(_ROUNDS << 28)


def has_rensa() -> bool:
    """Whether the library rensa is installed."""
    spec = importlib.util.find_spec("rensa")
    return spec is not None and spec.origin is not None  # a folder of that name is none


def _rensa_sketch(hashes: Hashes) -> np.ndarray:
    """As `sketch`, by rensa, whose values are others of the same kind."""
    make: Any = importlib.import_module("rensa").RMinHash.digest_matrix_from_flat_token_hashes
    matrix = make(hashes.values, hashes.starts.astype(np.uint64), PLACES, 0)
    values = np.array(matrix.to_rows(), np.uint64).reshape(-1, PLACES)
    return (mix(values) >> np.uint64(56)).astype(np.uint8)


def similarities(pairs: np.ndarray, fetch: Fetch, others: Fetch | None = None) -> np.ndarray:
    """Jaccard similarity of each pair's texts, exact.

    Args:
        pairs: Numbers, int64 `[P, 2]`; sorted ones need fewer texts at a time.
        fetch: Texts by their numbers, called for some hundred at a time.
        others: The same for the second column, if its numbers are those of other texts.

    Returns:
        float64 `[P]`.
    """
    result = np.zeros(len(pairs))
    for start in range(0, len(pairs), 500):
        part = pairs[start : start + 500]
        if others is None:
            first = second = _Pieces(np.unique(part), fetch)
        else:
            first, second = _Pieces(np.unique(part[:, 0]), fetch), _Pieces(np.unique(part[:, 1]), others)
        result[start : start + 500] = [jaccard(first[a], second[b]) for a, b in part.tolist()]
    return result


class _Pieces:
    """Pieces of some texts by number, cut when they are asked for; a limited number of sets is kept."""

    def __init__(self, numbers: np.ndarray, fetch: Fetch) -> None:
        self._places = {number: place for place, number in enumerate(numbers.tolist())}
        self._letters = normalise_all(fetch(numbers.tolist()))
        self._sets: dict[int, frozenset[str]] = {}
        self._size = 0

    def __getitem__(self, number: int) -> frozenset[str]:
        pieces = self._sets.get(number)
        if pieces is None:
            pieces = shingles_of(self._letters.text(self._places[number]))
            self._size += len(pieces)
            if self._size > _KEPT_SHINGLES:
                self._sets, self._size = {}, len(pieces)
            self._sets[number] = pieces
        return pieces


@dataclass(frozen=True)
class Clusters:
    """Items that belong together, each similar to the medoid of its cluster.

    Attributes:
        medoid: For each item the one that its cluster is linked to, itself where it is in none; int64 `[N]`.
        sizes: Numbers of items of the clusters of at least two, largest first.
        longest_chain: Items of the largest group in which each is probably similar to some other; more than
            `sizes[0]` where a chain was cut.
        complete: Whether all candidates were compared.
    """

    medoid: np.ndarray
    sizes: tuple[int, ...]
    longest_chain: int
    complete: bool = True

    @property
    def copies(self) -> np.ndarray:
        """Numbers of the items that their medoids stand for, ascending."""
        return np.flatnonzero(self.medoid != np.arange(len(self.medoid)))

    @property
    def members(self) -> np.ndarray:
        """Numbers of the items in clusters, medoids included, ascending."""
        return np.unique(np.concatenate([self.copies, self.medoid[self.copies]]))


def clusters(
    n: int, pairs: np.ndarray, near: Callable[[np.ndarray], np.ndarray], *, most: int | None = None
) -> Clusters:
    """Put similar items together.

    Taking everything that is connected would chain items that have nothing in common (a ~ b ~ c ~ d). Instead the item
    with most candidates becomes a medoid and takes those that are near it, then the next of those left, the earlier of
    equals. So not all pairs have to be compared, only each item with its medoid.

    Args:
        n: Number of items.
        pairs: Candidates, int64 `[P, 2]`, each pair once.
        near: Whether the items of pairs (int64 `[L, 2]`) are similar, bool `[L]`.
        most: Items to compare with medoids at most. Default: no limit.
    """
    longest = int(np.bincount(components(n, pairs)).max()) if len(pairs) else 0
    medoid, compared, complete = np.arange(n), 0, True
    while len(pairs) and complete:
        links = _stars(n, pairs)
        complete = most is None or compared + len(links) <= most
        links = links[: None if most is None else most - compared]
        compared += len(links)
        holds = near(links)
        medoid[links[holds, 1]] = links[holds, 0]
        free = np.ones(n, bool)
        free[links[holds].ravel()] = False
        failed = np.sort(links[~holds], axis=1)
        apart = np.isin(pairs[:, 0] * n + pairs[:, 1], failed[:, 0] * n + failed[:, 1])
        pairs = pairs[free[pairs].all(axis=1) & ~apart]
    sizes = np.bincount(medoid, minlength=1)
    return Clusters(medoid, tuple(sorted(sizes[sizes > 1].tolist(), reverse=True)), longest, complete)


def _stars(n: int, pairs: np.ndarray) -> np.ndarray:
    """Medoids and the items that they take, int64 `[L, 2]`, sorted; each item is in at most one star."""
    codes = np.concatenate([pairs[:, 0] * n + pairs[:, 1], pairs[:, 1] * n + pairs[:, 0]])
    codes.sort()
    neighbours = (codes % n).astype(np.int32)
    del codes
    degree = np.bincount(pairs.ravel(), minlength=n)
    ends = np.cumsum(degree)
    medoid = np.full(n, -1)
    linked = np.flatnonzero(degree)
    for item in linked[np.argsort(-degree[linked], kind="stable")].tolist():
        if medoid[item] < 0:
            others = neighbours[ends[item] - degree[item] : ends[item]]
            medoid[others[medoid[others] < 0]] = item
            medoid[item] = item
    taken = np.flatnonzero((medoid >= 0) & (medoid != np.arange(n)))
    links = np.stack([medoid[taken], taken], axis=1)
    return links[np.argsort(links[:, 0], kind="stable")]


def _found(similarity: float, size: int) -> float:
    """Probability that two texts of a similarity share a band."""
    return 1 - (1 - similarity**size) ** (PLACES // size)


def _contains(sorted_codes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    place = np.searchsorted(sorted_codes, codes)
    inside = place < len(sorted_codes)
    inside[inside] = sorted_codes[place[inside]] == codes[inside]
    return inside


def parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in parts whose arrays fit into a processor's cache."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and size + len(text) > _BATCH:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part
