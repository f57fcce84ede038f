"""How often a judge prefers a policy's response to the reference's, and what length has to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from hf_align.statistics import Resampling

PRIOR_VARIANCE = 100.0
"""Of the normal prior on the weight of length, which keeps it finite where length alone decides who wins."""
STEPS, LONGEST_STEP, LARGEST = 40, 2.0, 20.0
"""Of Newton's method: number, longest, and largest intercept (that of a policy that wins everything is infinite)."""
DRAWN = 50
"""Resamples fitted at once."""


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
        rate, interval = resampling.ratio(wins, np.ones(len(wins)), unit)
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


def length_controlled(
    wins: NDArray[np.float64], longer: NDArray[np.float64], resampling: Resampling, unit: NDArray[np.intp]
) -> dict[str, Any]:
    """The win rate at equal length, by a logistic regression of the win on the difference of lengths.

        P(win) = sigmoid(a + b tanh(d / sd(d)))        win rate at d = 0: sigmoid(a)

    with d by how much the policy's response is longer; a tie counts as half a win. This is AlpacaEval 2's
    length-controlled win rate (Dubois et al. 2024, arXiv:2404.04475) without its term for the difficulty of an
    instruction, which needs the results of many models. b has a normal prior with variance 100.

    Args:
        wins: `[N]` 1, 1/2 or 0.
        longer: `[N]` d.
        resampling: Draws of prompts.
        unit: `[N]` the prompt of each.

    Returns:
        "length_controlled" with "length_controlled_interval", "length_weight" (b) with "length_weight_interval",
        "mean_longer", and "within": whether both longer and shorter responses (or equal ones) occur, so that nothing is
        extrapolated. NaN where all responses are longer by the same.
    """
    deviation = longer.std()
    facts = {"mean_longer": float(longer.mean()), "within": bool(longer.min() <= 0 <= longer.max())}
    if not deviation and longer.any():
        nothing = {"length_controlled": np.nan, "length_controlled_interval": [np.nan] * 2}
        return {**nothing, "length_weight": np.nan, "length_weight_interval": [np.nan] * 2, **facts}
    x = np.tanh(longer / deviation) if deviation else longer
    fitted = fit_logistic(x, wins, np.ones((1, len(wins))))[0]
    drawn = np.concatenate(
        [
            fit_logistic(x, wins, resampling.counts[unit, start : start + DRAWN].T.astype(float))
            for start in range(0, resampling.resamples, DRAWN)
        ]
    )
    return {
        "length_controlled": float(expit(fitted[0])),
        "length_controlled_interval": resampling.interval(expit(drawn[:, 0])),
        "length_weight": float(fitted[1]),
        "length_weight_interval": resampling.interval(drawn[:, 1]),
        **facts,
    }


def fit_logistic(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit P(y) = sigmoid(a + b x) by Newton's method, once for each row of weights.

    Args:
        x: `[N]`.
        y: `[N]` shares from 0 to 1.
        weights: `[R, N]` how often each row counts.

    Returns:
        `[R, 2]` a and b: the maximum of the likelihood times the prior of b, |a| at most 20.
    """
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        p = expit(a[:, None] + b[:, None] * x)  # [R, N]
        missing, spread = weights * (y - p), weights * p * (1 - p)
        slope_a, slope_b = missing.sum(1), missing @ x - b / PRIOR_VARIANCE
        aa, ab, bb = spread.sum(1) + 1e-12, spread @ x, spread @ (x * x) + 1 / PRIOR_VARIANCE
        determinant = np.maximum(aa * bb - ab * ab, 1e-12)
        steps = np.stack([bb * slope_a - ab * slope_b, aa * slope_b - ab * slope_a]) / determinant
        steps /= np.maximum(1, np.abs(steps).max(0) / LONGEST_STEP)
        a, b = np.clip(a + steps[0], -LARGEST, LARGEST), b + steps[1]
        if np.abs(steps).max() < 1e-9:
            break
    return np.stack([a, b], axis=1)
