"""What several people said about a row: how far they agree about it, and the share of them that prefers its first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, TypeGuard

from hf_align.collators.rankings import vote_share

Opinion = tuple[float, float]
"""Share of pairs of people who agree, and share who prefer the first response; NaN where there are no two people."""
NOBODY: Opinion = (math.nan, math.nan)


def of_votes(votes: Sequence[float]) -> Opinion:
    """Of votes of 0, .5 and 1: the share of pairs of them that are the same.

    Example:
        >>> from hf_align.data.inspection.opinions import of_votes
        >>> of_votes([1.0, 1.0, 1.0, 0.0])  # 3 of 6 pairs
        (0.5, 0.75)
    """
    n = len(votes)
    if n < 2:
        return NOBODY
    return sum(count * (count - 1) for count in Counter(votes).values()) / (n * (n - 1)), fmean(votes)


def of_ratings(ratings: Sequence[Sequence[float]]) -> Opinion:
    """Of the ratings of each response: the share of pairs of one rating of either that have the same order.

    Equal ratings count half. Of more than two responses it is the mean over those two whose means differ; the share
    who prefer the first is then NaN.

    Example:
        >>> from hf_align.data.inspection.opinions import of_ratings
        >>> of_ratings([[3, 1], [1, 0]])
        (0.875, 0.875)
    """
    pairs = [(one, two) for one, two in combinations(ratings, 2) if len(one) * len(two) > 1]
    if len(ratings) > 2:
        pairs = [(one, two) for one, two in pairs if fmean(one) != fmean(two)]
    if not pairs:
        return NOBODY
    shares = [vote_share(one, two) for one, two in pairs]
    return fmean(max(share, 1 - share) for share in shares), shares[0] if len(ratings) == 2 else math.nan


def of_label(label: float | None) -> Opinion:
    """Of a label P(first better) alone: how often two people agree who prefer the first with this probability.

    0 and 1 may be anybody's, and .5 may be a tie that all agree on: they say nothing about agreement.

    Example:
        >>> from hf_align.data.inspection.opinions import of_label
        >>> of_label(0.75)  # .75² + .25²
        (0.625, 0.75)
    """
    if label is None or label in (0, 0.5, 1):
        return NOBODY
    return label * label + (1 - label) * (1 - label), label


def ratings_of(row: Mapping[str, Any], values: Mapping[str, Any]) -> list[list[float]]:
    """Every rating of each response, of a ranking or of `chosen_ratings` and `rejected_ratings`; [] if it has none."""
    ratings = values.get("ratings")
    if ratings is not None:
        return ratings
    sides = [row.get("chosen_ratings"), row.get("rejected_ratings")]
    numbers = [list(map(float, side)) for side in sides if _are_numbers(side)]
    return numbers if len(numbers) == 2 else []


def _are_numbers(side: Any) -> TypeGuard[list[float]]:
    if not isinstance(side, list) or not side:
        return False
    return set(map(type, side)) <= {int, float} and math.isfinite(math.fsum(side))
