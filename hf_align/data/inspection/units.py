"""Values that people gave to units, kept small: a data set may hold millions of them."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from hf_align.data.answers import Answers

MOST = 1_000_000
"""Values from which a random half of the units is kept."""


class Units:
    """Units by hash, with their values and the groups they belong to.

    Beyond `most` values, units whose hash is in the lower half are kept, then in the lower quarter, and so on: a random
    choice that depends on the units alone.

    Args:
        groups: Names of the columns that group units.
        merge: Whether an entry with a hash that was met before adds values to that unit (of several values of one
            rater the last one counts). Otherwise it is the same unit again, and left out.
        most: See above.
    """

    def __init__(self, groups: Sequence[str] = (), *, merge: bool = False, most: int = MOST) -> None:
        self._merge, self._most, self._below = merge, most, 2**64
        self._keys, self._sizes = array("Q"), array("I")
        self._values, self._raters = array("d"), array("i")
        self._groups = {name: array("i") for name in groups}
        self._labels: dict[str, dict[Hashable, int]] = {name: {} for name in groups}
        self._names: dict[Hashable, int] = {}

    def add(
        self,
        key: int,
        values: Iterable[float],
        raters: Sequence[Hashable] | None = None,
        groups: Mapping[str, Hashable] | None = None,
    ) -> None:
        """Take in values of a unit.

        Args:
            key: The unit's hash, below 2^64.
            values: The values.
            raters: Who gave each; None if that isn't known.
            groups: The unit's label in each of the columns.
        """
        if key >= self._below:
            return
        before = len(self._values)
        self._values.extend(values)
        size = len(self._values) - before
        self._keys.append(key)
        self._sizes.append(size)
        numbers = [-1] * size if raters is None else [self._names.setdefault(r, len(self._names)) for r in raters]
        self._raters.extend(numbers)
        for name, column in self._groups.items():
            labels = self._labels[name]
            column.append(labels.setdefault((groups or {}).get(name), len(labels)))
        if len(self._values) > self._most:
            self._shrink()

    @property
    def share(self) -> float:
        """Share of the units that is kept."""
        return self._below / 2**64

    @property
    def keys(self) -> NDArray[np.uint64]:
        """`[E]` hash of each entry, in order."""
        return np.array(self._keys)

    def labels(self, name: str) -> list[Hashable]:
        """Label of each unit of `answers` in a column."""
        _, first = np.unique(self.keys, return_index=True)
        numbers = np.array(self._groups[name])[first]
        names = list(self._labels[name])
        return [names[number] for number in numbers.tolist()]

    def answers(self) -> Answers:
        """All values; units are numbers, in the order of their hashes."""
        distinct, first, of_entry = np.unique(self.keys, return_index=True, return_inverse=True)
        sizes = np.array(self._sizes)
        entry = np.repeat(np.arange(len(sizes)), sizes)
        unit, raters = of_entry[entry], np.array(self._raters)
        if self._merge:
            _, last = np.unique((unit * (len(self._names) + 1) + raters)[::-1], return_index=True)
            kept = np.sort(len(unit) - 1 - last) if len(self._names) else np.arange(len(unit))
        else:
            kept = np.flatnonzero(entry == first[unit])
        values = np.array(self._values)[kept]
        rater = raters[kept].astype(np.intp) if len(self._names) and (raters >= 0).all() else None
        return Answers(values, unit[kept], rater, range(len(distinct)), () if rater is None else list(self._names))

    def _shrink(self) -> None:
        """Make room: without units met again, and if that isn't enough with half of the units."""
        kept = np.ones(len(self._keys), dtype=bool)
        if not self._merge:
            kept[:] = False
            kept[np.unique(self.keys, return_index=True)[1]] = True
        sizes = np.array(self._sizes)
        if sizes[kept].sum() > 0.75 * self._most:
            self._below //= 2
            kept &= self.keys < self._below
        of_value = np.repeat(kept, sizes)
        for column in (self._keys, self._sizes, *self._groups.values()):
            _keep(column, kept)
        for column in (self._values, self._raters):
            _keep(column, of_value)


def _keep(column: array, chosen: NDArray[np.bool_]) -> None:
    column[:] = array(column.typecode, np.array(column)[chosen].tobytes())


def digest(*parts: bytes) -> int:
    """Hash of byte strings, below 2^64."""
    state = blake2b(digest_size=8)
    for part in parts:
        state.update(len(part).to_bytes(4, "little") + part)
    return int.from_bytes(state.digest(), "little")
