"""Accuracy of a reward model on the pairs that people compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.statistics import Resampling, cases_of, interval_of_share


def points(data: Comparisons, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[P]` 1 where the scores `[R]` order a pair as people do, 0 where not, .5 for equal scores; NaN for undecided."""
    order = np.sign(scores[data.first] - scores[data.second]) * data.better
    return np.where(data.better == 0, np.nan, (order + 1) / 2)


def measure_accuracy(data: Comparisons, scores: NDArray[np.float64], resampling: Resampling) -> dict[str, Any]:
    """Share of decided pairs ordered as people do; equal scores count half, as by chance.

    Args:
        data: The pairs.
        scores: `[R]` the model's.
        resampling: Draws of `data`'s units.

    Returns:
        "pairs" (decided), "undecided", "equal_scores" (decided pairs that got equal scores), "prompts" (with decided
        pairs), "accuracy" over all pairs, "by_prompt" with each prompt counting alike (None if pairs cross prompts),
        "vote_agreement" (share of single people's votes that agree with the majority in these pairs: 1 where only the
        outcome is known) and "margin", the mean of better minus worse score in the model's standard deviations, each
        with its "..._interval".
    """
    unit, other = data.pair_units
    gained = points(data, scores)
    decided = ~np.isnan(gained)
    unit, other = unit[decided], None if other is None else other[decided]
    gained, better = gained[decided], data.better[decided]
    gap = (scores[data.first] - scores[data.second])[decided] * better
    deviation = float(np.std(scores))
    ones = np.ones(len(gained))
    prompt_of = data.prompt_of[data.first][decided]
    figures = {
        "accuracy": gained,
        "vote_agreement": data.vote_agreement[decided],
        "margin": gap / deviation if deviation else gap,
    }
    result: dict[str, Any] = {
        "pairs": len(gained),
        "undecided": int((~decided).sum()),
        "equal_scores": int((gained == 0.5).sum()),
        "prompts": len(np.unique(prompt_of)),
    }
    measured = resampling.ratios(np.stack(list(figures.values()), axis=1), ones, unit, other)
    for name, (value, interval) in zip(figures, measured, strict=True):
        result[name], result[f"{name}_interval"] = value, interval
    cases = cases_of(unit, other)
    result["accuracy_interval"] = interval_of_share(result["accuracy"], result["accuracy_interval"], cases)
    result["by_prompt"], result["by_prompt_interval"] = None, None
    if not data.across_prompts and data.unit == "prompts":
        pairs_of = np.bincount(prompt_of, minlength=len(data.prompts))[prompt_of]
        share, interval = resampling.ratio(gained / pairs_of, 1 / pairs_of, unit)
        result["by_prompt"], result["by_prompt_interval"] = share, interval_of_share(share, interval, cases)
    return result
