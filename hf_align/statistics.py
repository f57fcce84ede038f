"""Small statistics that the reports share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, bootstrap, kendalltau

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


def kendall_tau(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b of two `[N]` scores of the same things; NaN where one side is constant (no order to compare)."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    tau: Any = kendalltau(a, b)
    return float(tau.statistic)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust the p-values of one family of tests, so that the chance of any false finding stays below a level.

    Holm's step-down method (1979): the i-th smallest of m is multiplied by m - i + 1, and no adjusted value is below
    that of a smaller one.

    Args:
        p_values: `[m]`; NaN (no test) stays NaN and doesn't count in m.

    Returns:
        `[m]`, at most 1.

    Example:
        >>> from hf_align.statistics import holm
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    adjusted, tested = np.full_like(p, np.nan), np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted


def groups(labels: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """Row indices of every label, labels in alphabetical order."""
    array = np.asarray(labels)
    return {label: np.flatnonzero(array == label) for label in sorted(set(labels))}


def wilson_interval(share: float, rows: int) -> tuple[float, float]:
    """95% interval of a share of `rows` rows (Wilson, 1927)."""
    interval = binomtest(round(share * rows), rows).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def interval_of_share(share: float, interval: Interval, cases: int) -> Interval:
    """The bootstrap's interval of a share, or Wilson's where the share is 0 or 1.

    There every resample gives the same, an interval without width: three of three would be 100% for sure.

    Args:
        share: The share.
        interval: The bootstrap's; NaN stays.
        cases: Number of independent cases: the units that are drawn, not their rows.

    Example:
        >>> from hf_align.statistics import interval_of_share
        >>> [round(end, 2) for end in interval_of_share(1.0, [1.0, 1.0], 3)]
        [0.44, 1.0]
    """
    low, high = interval
    if cases and high - low < _ROUNDING and min(abs(share), abs(1 - share)) < _ROUNDING:  # NaN stays
        return [*wilson_interval(share, cases)]
    return interval


def resampled_share(
    hits: ArrayLike, unit: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, Interval]:
    """A share of rows, and its 95% bootstrap interval with whole units drawn.

    As `Resampling.share`, in memory that doesn't grow with the number of units times resamples: units
    with as many hits among as many rows are drawn together.

    Args:
        hits: `[N]` booleans.
        unit: `[N]` unit of each row, as its number.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        The share and `[low, high]`; NaN without rows, both ends NaN for fewer than two units.

    Example:
        >>> from hf_align.statistics import resampled_share
        >>> resampled_share([True, True, False, True], [0, 1, 2, 2])[0]
        0.75
    """
    hit = np.asarray(hits, dtype=bool)
    if not len(hit):
        return float("nan"), [float("nan"), float("nan")]
    _, number, rows = np.unique(np.asarray(unit), return_inverse=True, return_counts=True)
    kinds, counts = np.unique(np.stack([np.bincount(number, hit), rows]), axis=1, return_counts=True)
    if len(rows) < 2:
        return float(hit.mean()), [float("nan"), float("nan")]
    rng = np.random.default_rng(seed)
    shares = np.empty(resamples)
    for start in range(0, resamples, _DRAWN):
        drawn = rng.multinomial(len(rows), counts / len(rows), min(_DRAWN, resamples - start))
        above, below = kinds @ drawn.T
        shares[start : start + _DRAWN] = above / below
    low, high = np.percentile(shares, [2.5, 97.5])
    share = float(hit.mean())
    return share, interval_of_share(share, [float(low), float(high)], len(rows))


class Resampling:
    """Bootstrap of sums over whole units (prompts, texts): the same draws for every figure.

    Rows of one unit depend on each other (all pairs of a prompt share its texts), so units are drawn, not rows: an
    interval over pairs would be several times too narrow.

    Args:
        units: Number of units.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Attributes:
        counts: `[units, resamples]` how often each resample drew each unit.

    Example:
        >>> from hf_align.statistics import Resampling
        >>> resampling = Resampling(3, resamples=500)
        >>> resampling.ratio([1.0, 0.0, 1.0, 1.0], [1.0] * 4, unit=[0, 1, 2, 2])[0]
        0.75
    """

    def __init__(self, units: int, *, resamples: int = 2000, seed: int = 0):
        self.units, self.resamples = units, resamples
        rng = np.random.default_rng(seed)
        kind = np.uint8 if units < 256 else np.uint16  # a count is at most the number of units
        self.counts = np.empty((units, resamples), dtype=kind)
        for start in range(0, resamples, _DRAWN):
            stop = min(start + _DRAWN, resamples)
            drawn = rng.integers(0, units, (stop - start, units)) + units * np.arange(stop - start)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=units * (stop - start))
            self.counts[:, start:stop] = counts.reshape(stop - start, units).T

    def sums(self, values: ArrayLike, unit: ArrayLike, other: ArrayLike | None = None) -> NDArray[np.float64]:
        """Sums of columns in every resample.

        Args:
            values: `[N, C]` values.
            unit: `[N]` unit of each row.
            other: `[N]` second unit, for rows that belong to two (a pair of texts): such a row counts once for each
                pair of their copies.

        Returns:
            `[resamples, C]`.
        """
        table, first = np.asarray(values, dtype=float), np.asarray(unit, dtype=np.intp)
        if other is None:
            by_unit = np.stack([np.bincount(first, column, minlength=self.units) for column in table.T], axis=1)
            first, table, second = np.arange(self.units), by_unit, None
        else:
            second = np.asarray(other, dtype=np.intp)
        sums = np.empty((self.resamples, table.shape[1]))
        single = table.astype(np.float32)  # enough for an interval, in half the time
        for start in range(0, self.resamples, _DRAWN):
            part = self.counts[:, start : start + _DRAWN].astype(np.float32)
            weights = part if second is None else part[first] * part[second]
            sums[start : start + _DRAWN] = weights.T @ single
        return sums

    def ratio(
        self, above: ArrayLike, below: ArrayLike, unit: ArrayLike, other: ArrayLike | None = None
    ) -> tuple[float, Interval]:
        """A ratio of two sums over rows, such as a mean, and its interval.

        Args:
            above: `[N]` numerator's terms.
            below: `[N]` denominator's terms.
            unit: See `sums`.
            other: See `sums`.

        Returns:
            The ratio (NaN if the denominator is 0) and `[low, high]`.
        """
        return self.ratios(np.asarray(above, dtype=float)[:, None], below, unit, other)[0]

    def share(self, hits: ArrayLike, unit: ArrayLike, other: ArrayLike | None = None) -> tuple[float, Interval]:
        """A share of rows, or another mean of values from 0 to 1, and its interval.

        Args:
            hits: `[N]` values.
            unit: See `sums`.
            other: See `sums`.

        Returns:
            The share and `[low, high]`; where it is 0 or 1, Wilson's interval with as many cases as units.
        """
        value, interval = self.ratio(hits, np.ones(len(np.asarray(hits))), unit, other)
        return value, interval_of_share(value, interval, cases_of(unit, other))

    def ratios(
        self, above: ArrayLike, below: ArrayLike, unit: ArrayLike, other: ArrayLike | None = None
    ) -> list[tuple[float, Interval]]:
        """Ratios of several sums to one, as in `ratio`, in one pass.

        Args:
            above: `[N, C]` numerators' terms.
            below: `[N]` denominator's terms.
            unit: See `sums`.
            other: See `sums`.

        Returns:
            C ratios with `[low, high]`.
        """
        table = np.concatenate([np.asarray(above, dtype=float), np.asarray(below, dtype=float)[:, None]], axis=1)
        *tops, bottom = table.sum(axis=0)
        sums = self.sums(table, unit, other)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = sums[:, :-1] / sums[:, -1:]
        return [
            (float(top / bottom) if bottom else float("nan"), self.interval(column))
            for top, column in zip(tops, values.T, strict=True)
        ]

    def interval(self, values: ArrayLike) -> Interval:
        """Middle 95% of a statistic's `[resamples]` values.

        Values that are NaN don't count. Both ends are NaN for fewer than two units, or if half of the values are NaN.
        """
        finite = (array := np.asarray(values, dtype=float))[np.isfinite(array)]
        if self.units < 2 or 2 * len(finite) < len(array) or not len(finite):
            return [float("nan"), float("nan")]
        low, high = np.percentile(finite, [2.5, 97.5])
        return [float(low), float(high)]


def cases_of(unit: ArrayLike, other: ArrayLike | None = None) -> int:
    """Number of independent rows: one for each unit, or for every two where rows belong to two units."""
    if other is None:
        return len(np.unique(np.asarray(unit)))
    return len(np.unique(np.concatenate([np.asarray(unit), np.asarray(other)]))) // 2


_ROUNDING = 1e-6
"""Of sums in single precision."""
_DRAWN = 50
"""Resamples handled at once."""
