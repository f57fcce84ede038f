"""How a reward model's scores correlate with ratings, and how many people's mean they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.evaluation.ratings import HUMAN, rating_report
from hf_align.statistics import bootstrap_interval, groups, pearson

MODEL = "model"


def measure_people(
    data: Comparisons, scores: NDArray[np.float64], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any] | None:
    """Correlation of scores and mean ratings, overall and by subset, beside a single person's.

    Args:
        data: Rated responses.
        scores: `[R]` the model's.
        resamples: Bootstrap resamples of the intervals, over texts.
        seed: Their seed.

    Returns:
        {"all" | subset: {"texts", "r" with "r_interval", "why" (why r is None: one side doesn't vary), and where every
        text has two or more single ratings "human_r" (a rater against the mean of that text's others) and "worth" (see
        `worth_people`)}}. None for other data than rated responses.
    """
    if data.layout != "ratings":
        return None
    names = np.asarray([*data.subsets, ""])[data.subset_of]
    parts = {"all": np.arange(len(scores)), **(groups(names.tolist()) if data.subsets else {})}
    several = min(map(len, data.ratings)) > 1
    people = (
        rating_report({MODEL: scores.tolist()}, data.ratings, names.tolist(), resamples=1, seed=seed) if several else {}
    )
    result = {}
    for label, rows in parts.items():
        human, given = data.human[rows], scores[rows]
        flat = next((what for what, side in (("ratings", human), ("scores", given)) if np.ptp(side) == 0), None)
        entry: dict[str, Any] = {"texts": len(rows), "r": None, "r_interval": None, "why": None}
        if flat is None:
            entry["r"] = float(pearson(given, human))
            entry["r_interval"] = bootstrap_interval(pearson, given, human, resamples=resamples, seed=seed)
        else:
            entry["why"] = f"undefined: all {flat} are equal"
        if label in people:
            entry["human_r"] = people[label]["scorers"][HUMAN]["r"]
            entry["worth"] = worth_people(entry["r"], entry["human_r"])
        result[label] = entry
    return result


def worth_people(r: float | None, human_r: float) -> float | None:
    """Number of people whose mean rating correlates with everybody's as the model's scores do.

    Spearman and Brown's formula: the mean of k people, of whom each correlates with everybody's mean by h, correlates
    by h sqrt(k / (1 + (k - 1) h^2)). Below 1 the model is worth less than one person.

    Args:
        r: The model's correlation.
        human_r: A single person's, h.

    Returns:
        k; 0 for a correlation that isn't positive, None where there is none or either is 1.
    """
    if r is None or not 0 < human_r < 1 or r >= 1:
        return None
    return max(0.0, r) ** 2 * (1 - human_r**2) / (human_r**2 * (1 - r**2))
