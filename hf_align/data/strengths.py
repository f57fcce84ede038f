"""Strengths of responses from comparisons of some of them (Bradley and Terry, 1952)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit


def fit_strengths(
    count: int, first: ArrayLike, second: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None
) -> np.ndarray:
    """Most likely strengths, with P(i better than j) = sigmoid(strength_i - strength_j).

    The prior is one win and one loss of each item against an item of strength 0: an item that only wins gets a finite
    strength, and one that was compared little stays near 0.

        minimise  sum w * (softplus(d) - p * d)  +  sum 2 * softplus(s) - s,     d = s_first - s_second

    Args:
        count: Number of items.
        first: Number of one item of each comparison `[C]`.
        second: Number of the other `[C]`.
        label: P(first better than second) `[C]`.
        weight: Weight of each comparison `[C]`. Default: 1.

    Returns:
        `[count]` strengths, in nats.

    Example:
        >>> from hf_align.data.strengths import fit_strengths
        >>> fit_strengths(3, [0, 1], [1, 2], [1.0, 1.0]).round(3).tolist()
        [0.693, 0.0, -0.693]
    """
    one, two, p = np.asarray(first, int), np.asarray(second, int), np.asarray(label, float)
    w = np.ones(len(p)) if weight is None else np.asarray(weight, float)

    def loss(s: np.ndarray) -> tuple[float, np.ndarray]:
        d = s[one] - s[two]
        value = (w * (np.logaddexp(0, d) - p * d)).sum() + (2 * np.logaddexp(0, s) - s).sum()
        slope = w * (expit(d) - p)
        gradient = np.bincount(one, slope, count) - np.bincount(two, slope, count) + 2 * expit(s) - 1
        return float(value), gradient

    limits = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000}
    return minimize(loss, np.zeros(count), jac=True, method="L-BFGS-B", options=limits).x
