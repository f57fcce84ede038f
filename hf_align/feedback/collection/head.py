"""A linear Bradley-Terry head on frozen features, fitted to all answers so far in seconds, and what it is unsure of.

With it a collection knows what to ask before there is a reward model. The posterior is Laplace's: normal, with the
minimum of the penalised loss as mean and the inverse of its second derivative as covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, eigh, solve_triangular
from scipy.special import expit

from hf_align.feedback.collection.information import Beliefs

STEPS, TOLERANCE = 100, 1e-9
OUTLIER = 5.0
"""Deviations from the mean at which a feature is cut."""


@dataclass(frozen=True)
class LinearHead:
    """Weights of a linear reward and their covariance.

    Attributes:
        weights: `[d]`.
        root: `[d, d]`, whose product with its transpose is the covariance.
    """

    weights: NDArray[np.float64]
    root: NDArray[np.float64]

    @classmethod
    def fit(
        cls, differences: ArrayLike, preferences: ArrayLike, *, penalty: float, start: ArrayLike | None = None
    ) -> LinearHead:
        """Minimise -sum(y log p + (1 - y) log(1 - p)) + penalty / 2 w'w, p = sigmoid(differences @ w), by Newton steps.

        Args:
            differences: `[N, d]` features of the first less those of the second response.
            preferences: `[N]` y, from 0 (second) to 1 (first); a tie is .5.
            penalty: Precision of the prior of each weight, above 0.
            start: `[d]` weights to start from. Default: 0.

        Example:
            >>> from hf_align.feedback.collection.head import LinearHead
            >>> head = LinearHead.fit([[1.0, 0.0], [1.0, 1.0]], [1.0, 0.5], penalty=1.0)
            >>> head.weights.round(2).tolist()
            [0.35, -0.07]
        """
        x, y = np.asarray(differences, dtype=float), np.asarray(preferences, dtype=float)
        w = np.zeros(x.shape[1]) if start is None else np.array(start, dtype=float)

        def loss(w: NDArray) -> float:
            f = x @ w
            return float(np.logaddexp(0, f).sum() - y @ f + penalty / 2 * w @ w)

        for _ in range(STEPS):
            p = expit(x @ w)
            gradient = x.T @ (p - y) + penalty * w
            step = cho_solve(cho_factor(_precision(x, p, penalty)), gradient)
            before, size = loss(w), 1.0
            while loss(w - size * step) > before and size > TOLERANCE:
                size /= 2
            w = w - size * step
            if gradient @ step < TOLERANCE:
                break
        lower = np.linalg.cholesky(_precision(x, expit(x @ w), penalty))
        return cls(w, solve_triangular(lower, np.eye(len(w)), lower=True).T)

    def beliefs(self, differences: ArrayLike) -> Beliefs:
        """What the head expects of pairs, given their features' differences `[C, d]`."""
        x = np.asarray(differences, dtype=float)
        return Beliefs(x @ self.weights, x @ self.root)


def _precision(x: NDArray, p: NDArray, penalty: float) -> NDArray:
    """`[d, d]` second derivative of the penalised loss."""
    return (x * (p * (1 - p))[:, None]).T @ x + penalty * np.eye(x.shape[1])


@dataclass(frozen=True)
class EvenFeatures:
    """Turns pooled hidden states into features of which none is much longer than the others.

    Each column is standardised and cut at 5 deviations, the first principal components are kept, and rows longer than
    the median are scaled to it; the median has length 1. So no response counts for more because its states are large:
    choices would go to outliers, on which a linear reward is least right.

    Attributes:
        mean: `[D]` of the states.
        scale: `[D]` their deviations.
        components: `[D, d]` principal components, in units of the median length.

    Example:
        >>> from hf_align.feedback.collection.head import EvenFeatures
        >>> states = [[1.0, 5.0], [2.0, 4.0], [6.0, 1.0]]
        >>> features = EvenFeatures.fit(states)(states)
        >>> (features**2).sum(1).round(2).tolist()
        [1.0, 0.2, 1.0]
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]

    @classmethod
    def fit(cls, states: ArrayLike, components: int = 120) -> EvenFeatures:
        """Fit to states `[N, D]` of responses that may be asked about; at most so many components."""
        x = np.asarray(states, dtype=float)
        deviation = x.std(0)
        even = cls(x.mean(0), np.where(deviation > 0, deviation, 1), np.eye(x.shape[1]))
        cut = even._cut(x)
        kept = _directions(cut, min(components, *x.shape))
        return replace(even, components=kept / (np.median(np.linalg.norm(cut @ kept, axis=1)) or 1))

    def __call__(self, states: ArrayLike) -> NDArray[np.float64]:
        """Features `[N, d]` of states `[N, D]`."""
        x = self._cut(np.asarray(states, dtype=float)) @ self.components
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1)

    def _cut(self, x: NDArray) -> NDArray:
        return np.clip((x - self.mean) / self.scale, -OUTLIER, OUTLIER)


def _directions(x: NDArray, count: int) -> NDArray:
    """`[D, count]` directions of most variance of `[N, D]` rows, of length 1 (0 where there is no more variance)."""
    wide = x.shape[1] > x.shape[0]  # then products of rows are fewer than those of columns
    gram = x @ x.T if wide else x.T @ x
    vectors = eigh(gram, subset_by_index=(len(gram) - count, len(gram) - 1))[1][:, ::-1]
    if not wide:
        return vectors
    found = x.T @ vectors
    lengths = np.linalg.norm(found, axis=0)
    return np.where(lengths > 1e-6 * lengths.max(), found / np.where(lengths > 0, lengths, 1), 0)
