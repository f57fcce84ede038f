"""How far an ensemble's members make the same errors, which no way of combining them can mend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isnan
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from hf_align.models.fitted_aggregation import Preferences

MUCH = 0.9
"""Correlation of two members' errors above which the second adds next to nothing."""


@dataclass(frozen=True)
class ErrorCorrelation:
    """Correlation of the members' errors on held-out preferences.

    An error is 1 where a member puts two responses into the other order than people, 1/2 where it gives both one score,
    0 otherwise. Its correlation over pairs is 1 for two members that err on the same pairs, 0 for independent ones.

    Attributes:
        name: Name of the rows.
        pairs: Pairs with a preference.
        errors: Each member's share of errors.
        matrix: `M x M` correlations (of shares, weighted as in a loss: a ranking counts as one row). NaN for a member
            without an error, or with nothing else.

    Example:
        >>> from hf_align.models.error_correlation import ErrorCorrelation
        >>> measured = ErrorCorrelation("held-out pairs", 4, (0.25, 0.5), ((1.0, 0.577), (0.577, 1.0)))
        >>> measured.mean, measured.high
        (0.577, [])
    """

    name: str
    pairs: int
    errors: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]

    @property
    def between(self) -> dict[tuple[int, int], float]:
        """Correlation of each two members, where it is defined."""
        two = combinations(range(len(self.errors)), 2)
        return {(i, j): self.matrix[i][j] for i, j in two if not isnan(self.matrix[i][j])}

    @property
    def mean(self) -> float:
        """Mean over all two members; NaN if it is defined for none."""
        return fmean(self.between.values()) if self.between else float("nan")

    @property
    def high(self) -> list[tuple[int, int]]:
        """Members whose errors correlate above .9."""
        return [two for two, value in self.between.items() if value > MUCH]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the mean."""
        return {**asdict(self), "mean": self.mean}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ErrorCorrelation:
        """Make one from the result of `to_json`, in which NaN may be None."""

        def numbers(row: Any) -> tuple[float, ...]:
            return tuple(float("nan") if value is None else float(value) for value in row)

        matrix = tuple(map(numbers, values["matrix"]))
        return cls(str(values["name"]), int(values["pairs"]), numbers(values["errors"]), matrix)


def correlate_errors(scores: Tensor, preferences: Preferences, name: str) -> ErrorCorrelation:
    """Correlation of the errors of M members with scores `[M, R]` against people's order."""
    decided = preferences.label != 0.5
    first, second = preferences.first[decided], preferences.second[decided]
    weight = preferences.weight[decided] / preferences.weight[decided].sum()
    sign = torch.where(preferences.label[decided] > 0.5, 1.0, -1.0).double()
    scores = scores.double()
    errors = (1 - sign * (scores[:, first] - scores[:, second]).sign()) / 2  # [M, P]
    share = errors @ weight
    centred = errors - share[:, None]
    covariance = (centred * weight) @ centred.T
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    deviation = deviation.masked_fill(deviation < 1e-12, float("nan"))
    matrix = (covariance / (deviation[:, None] * deviation)).clamp(-1, 1)
    return ErrorCorrelation(name, len(first), tuple(share.tolist()), tuple(map(tuple, matrix.tolist())))
