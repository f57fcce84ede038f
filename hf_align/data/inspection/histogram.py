"""Histograms that are ready to draw."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 30
OUTSIDE = 1.0
"""Percentage of the values at each end that may lie beyond the bins; the outer bins count them."""


def histogram(*values: NDArray[Any]) -> dict[str, Any]:
    """Counts of values in common bins of equal width.

    Args:
        *values: One or more `[N]` arrays of finite numbers, not all empty.

    Returns:
        "edges", one more than there are bins, and "counts" of each array. The few values beyond the outer edges are
        counted in the outer bins.
    """
    together = np.concatenate(values)
    low, high = np.percentile(together, [OUTSIDE, 100 - OUTSIDE])
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(np.clip(each, low, high), edges)[0].tolist() for each in values]
    return {"edges": edges.tolist(), "counts": counts}
