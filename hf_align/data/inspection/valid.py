"""Each row's verdict: whether to train on it, and if not, why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from hf_align.data.inspection.findings import Finding

TELLING = (
    *("low_agreement", "small_margin", "near_identical_responses", "repetition", "cut_off", "several_answers"),
    *("contradicted_pair", "swapped_pair", "cycle", "score_contradicts", "shared_prompt", "contaminated"),
)
"""Kinds of warnings that make every row listed invalid. Errors do so as well, and what a finding drops."""


class Verdicts(Sequence[tuple[bool, str]]):
    """(valid, reason) of each row; the reason of a valid one is "".

    A row is invalid if a finding of severity "error" lists it, one of a kind in `TELLING`, or one that would drop it
    (of duplicates, all but the first). The reason names the kinds.

    Args:
        findings: What was found.
        rows: Number of rows.
        least: The thresholds, by kind, that the reason names.

    Example:
        >>> from hf_align.data import inspect_preferences
        >>> rows = [
        ...     {"prompt": "The film was", "chosen": " a joy.", "rejected": " long.", "votes": [1, 1, 1]},
        ...     {"prompt": "The film was", "chosen": " fine.", "rejected": " odd.", "votes": [1, 0, 1]},
        ... ]
        >>> list(inspect_preferences(rows).valid)
        [(True, ''), (False, 'low_agreement (below 0.7)')]
    """

    def __init__(self, findings: Sequence[Finding], rows: int, least: Mapping[str, float] | None = None) -> None:
        self._least = least or {}
        self._found: list[tuple[str, np.ndarray]] = []
        invalid = np.zeros(rows, dtype=bool)
        for finding in findings:
            every = finding.severity == "error" or finding.kind in TELLING
            numbers = np.unique(np.asarray(finding.rows if every else finding.drop, dtype=np.int64))
            if len(numbers):
                self._found.append((finding.kind, numbers))
                invalid[numbers] = True
        self._invalid = invalid

    @property
    def valid_rows(self) -> list[int]:
        """Numbers of the valid rows."""
        return np.flatnonzero(~self._invalid).tolist()

    def __len__(self) -> int:
        return len(self._invalid)

    def __iter__(self) -> Iterator[tuple[bool, str]]:
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, row: int) -> tuple[bool, str]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[bool, str]]: ...
    def __getitem__(self, row: int | slice) -> tuple[bool, str] | list[tuple[bool, str]]:
        if isinstance(row, slice):
            return [self[n] for n in range(*row.indices(len(self)))]
        number = range(len(self))[row]
        if not self._invalid[number]:
            return True, ""
        kinds = dict.fromkeys(kind for kind, numbers in self._found if _holds(numbers, number))
        return False, ", ".join(
            f"{kind} (below {self._least[kind]:g})" if kind in self._least else kind for kind in kinds
        )


def _holds(numbers: np.ndarray, number: int) -> bool:
    place = int(np.searchsorted(numbers, number))
    return place < len(numbers) and int(numbers[place]) == number
