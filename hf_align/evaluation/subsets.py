"""Accuracy of a reward model by subset of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.evaluation.accuracy import points
from hf_align.statistics import Resampling

FEWEST_UNITS = 10
"""Fewest prompts (or texts) of a subset that can be called the worst: with fewer, chance decides which one is."""


def measure_subsets(data: Comparisons, scores: NDArray[np.float64], resampling: Resampling) -> dict[str, Any] | None:
    """Accuracy of every subset, the lowest first.

    Args:
        data: The pairs.
        scores: `[R]` the model's.
        resampling: Draws of `data`'s units.

    Returns:
        "subsets": "name", "pairs", "units" (prompts or texts), "accuracy" with "accuracy_interval"; "worst": the name
        of the least accurate with at least 10 units, or None; "mean", with each subset counting alike. None if rows
        name no subsets.
    """
    gained, unit = points(data, scores), data.unit_of
    first, other = data.pair_units
    subset = data.subset_of[data.first]
    rows = []
    for number, name in enumerate(data.subsets):
        inside = (subset == number) & ~np.isnan(gained)
        if not inside.any():
            continue
        accuracy, interval = resampling.share(gained[inside], first[inside], None if other is None else other[inside])
        units = np.unique(np.concatenate([unit[data.first[inside]], unit[data.second[inside]]]))
        rows.append(
            {
                "name": name,
                "pairs": int(inside.sum()),
                "units": len(units),
                "accuracy": accuracy,
                "accuracy_interval": interval,
            }
        )
    if not rows:
        return None
    rows.sort(key=lambda row: row["accuracy"])
    large = [row["name"] for row in rows if row["units"] >= FEWEST_UNITS]
    return {
        "subsets": rows,
        "worst": large[0] if large else None,
        "mean": float(np.mean([row["accuracy"] for row in rows])),
    }
