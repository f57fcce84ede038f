"""How often a judge prefers a policy's response to the reference's, and what length has to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_align.pair_statistics import length_controlled
from hf_align.statistics import Resampling


def wins_of(scores: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """`[N]` 1 where a policy's response scores higher than the reference's, 1/2 where both are equal, else 0."""
    return (1 + np.sign(np.asarray(scores, dtype=float) - np.asarray(reference, dtype=float))) / 2


def measure_win_rate(
    scores: Mapping[str, Sequence[float]], reference: str, resampling: Resampling, unit: NDArray[np.intp]
) -> dict[str, dict[str, Any]]:
    """Win rates of all policies over the reference by one judge; ties count half.

    Args:
        scores: The judge's `[N]` scores of the responses by policy.
        reference: Name of the reference.
        resampling: Draws of prompts.
        unit: `[N]` the prompt of each.

    Returns:
        By name: "win_rate" with "win_rate_interval", "wins", "ties" and "losses" (counts).
    """
    result = {}
    for name in scores:
        if name == reference:
            continue
        wins = wins_of(scores[name], scores[reference])
        rate, interval = resampling.share(wins, unit)
        counts = {label: int((wins == value).sum()) for label, value in (("wins", 1), ("ties", 0.5), ("losses", 0))}
        result[name] = {"win_rate": rate, "win_rate_interval": interval, **counts}
    return result


def measure_length_controlled(
    scores: Mapping[str, Sequence[float]],
    reference: str,
    lengths: Mapping[str, ArrayLike],
    resampling: Resampling,
    unit: NDArray[np.intp],
) -> dict[str, dict[str, Any]]:
    """Win rates at equal length; by name what `length_controlled` returns.

    Args:
        scores: See `measure_win_rate`.
        reference: Name of the reference.
        lengths: `[N]` lengths of the responses by policy, in characters.
        resampling: Draws of prompts.
        unit: `[N]` the prompt of each.
    """
    length = {name: np.asarray(values, dtype=float) for name, values in lengths.items()}
    return {
        name: length_controlled(
            wins_of(scores[name], scores[reference]), length[name] - length[reference], resampling, unit
        )
        for name in scores
        if name != reference
    }
