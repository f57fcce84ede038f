"""Whether a judge is fit to stand in for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LEAST_AGREEMENT = 0.6
"""Agreement below which a judge isn't fit, where people find two responses furthest apart."""
FEWEST = 20
"""Fewest pairs of a bucket whose agreement decides."""


def judge_fitness(agreement: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a judge agrees with people better than chance, and where the difference is plain to see.

    Args:
        agreement: From `measure_agreement_with_people`.

    Returns:
        "fit": False for a judge whose agreement over all pairs is no better than chance (the interval includes one
        half), or is below `LEAST_AGREEMENT` in the bucket of the largest gaps that has `FEWEST` pairs; None where the
        pairs are too few to tell. "reasons": why it isn't True, in words.
    """
    low, high = agreement["judge_interval"]
    figure = f"{agreement['judge']:.1%} of {agreement['pairs']:,} pairs"
    if not agreement["pairs"] or math.isnan(low):
        return {"fit": None, "reasons": ["there are too few pairs on which people are decided and it has an opinion"]}
    reasons = []
    if low <= 0.5:
        how = "worse than chance" if high < 0.5 else "no better than chance"
        reasons.append(f"it agrees with people on {figure} [{100 * low:.1f}, {100 * high:.1f}], {how}")
    widest = next((part for part in reversed(agreement["by_gap"]) if part["pairs"] >= FEWEST), None)
    if widest is not None and widest["judge"] < LEAST_AGREEMENT:
        reasons.append(
            f"where people find the responses furthest apart it agrees on {widest['judge']:.1%} of {widest['pairs']:,} "
            f"pairs, below {LEAST_AGREEMENT:.0%}"
        )
    return {"fit": not reasons, "reasons": reasons}
