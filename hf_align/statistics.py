"""Small statistics that the reports share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, bootstrap

Interval = list[float]
"""Lower and upper end of a 95% interval."""


def bootstrap_interval(
    statistic: Callable[..., Any], *samples: ArrayLike, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval at 95%, rows resampled together.

    Args:
        statistic: Function of the samples and `axis`, computed along that axis.
        *samples: One or more `[N]` arrays whose rows belong together.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        `[low, high]`; both NaN for fewer than two rows.
    """
    rows = [np.asarray(sample, dtype=float) for sample in samples]
    if len(rows[0]) < 2:
        return [float("nan"), float("nan")]
    # Percentile, not BCa: BCa is undefined if every resample gives the same value (a judge with one score for all).
    result = bootstrap(
        rows, statistic, paired=True, n_resamples=resamples, method="percentile", batch=200, rng=seed, vectorized=True
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def pearson(x: ArrayLike, y: ArrayLike, axis: int = -1) -> Any:
    """Pearson correlation along an axis; 0 where one side is constant."""
    a, b = (np.asarray(side, dtype=float) for side in (x, y))
    a, b = (side - side.mean(axis=axis, keepdims=True) for side in (a, b))
    scale = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    return np.where(scale > 0, (a * b).sum(axis=axis) / np.where(scale > 0, scale, 1.0), 0.0)[()]


def groups(labels: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """Row indices of every label, labels in alphabetical order."""
    array = np.asarray(labels)
    return {label: np.flatnonzero(array == label) for label in sorted(set(labels))}


def wilson_interval(share: float, rows: int) -> tuple[float, float]:
    """95% interval of a share of `rows` rows (Wilson, 1927)."""
    interval = binomtest(round(share * rows), rows).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
