"""A judge's agreement with people, by how far apart they find two responses, beside their own with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.feedback.judges.asked import Asked, sides
from hf_align.pair_statistics import one_by_one, reliability
from hf_align.statistics import Resampling, cases_of, interval_of_share

Figures = dict[str, Any]
GAPS = (0.5, 1.0, 2.0)
"""Ends of the buckets, in points of people's ratings."""
VOTE_GAPS = (0.2, 0.5, 0.8)
"""The same where only votes are known: the share for one response less the share for the other."""


def measure_agreement_with_people(
    data: Comparisons, asked: Asked, resampling: Resampling, gaps: Sequence[float] | None = None
) -> Figures:
    """Share of decided pairs in which a judge prefers what people do; a tie counts half.

    People's own agreement is the share of single votes that are for what people prefer together: of votes on the pair,
    or of pairs of one rating of each response, equal ones half. A vote is part of what it is compared with, so with few
    votes a pair it is too high (`remarks`).

    Args:
        data: The pairs.
        asked: The judge's opinions of them.
        resampling: Draws of `asked`'s units.
        gaps: Ends of the buckets. Default: `GAPS` for ratings, scores and margins, `VOTE_GAPS` for votes.

    Returns:
        "judge" with its interval, and where single votes are known "people" and "lead" (judge - people), else None;
        "pairs" (decided, with an opinion), "undecided" (by people) and "no_opinion" (decided ones). "gap": "ratings",
        "scores", "margin" or "votes" (what buckets are of), None where nothing is known; "by_gap": for each bucket with
        pairs "low", "high" (None: no end) and the same figures.
    """
    pairs = asked.pairs
    better, choice = data.better[pairs], sides(asked.preference)
    decided = better != 0
    counted = decided & ~np.isnan(choice)
    agreed = np.where(better > 0, choice, 1 - choice)
    kind, gap = _gaps_of(data)
    gap = gap[pairs]
    people = data.vote_agreement[pairs] if _has_votes(data) else None
    result: Figures = {
        **_compare(agreed, people, np.flatnonzero(counted), asked, resampling),
        "undecided": int((~decided).sum()),
        "no_opinion": int((decided & ~counted).sum()),
        "gap": kind,
        "by_gap": [],
    }
    if kind is None:
        return result
    ends = [*(gaps if gaps is not None else VOTE_GAPS if kind == "votes" else GAPS)]
    place = np.searchsorted(ends, gap, side="left")
    for number, (low, high) in enumerate(zip([0.0, *ends], [*ends, None], strict=True)):
        inside = np.flatnonzero(counted & (place == number) & ~np.isnan(gap))
        if len(inside):
            part = _compare(agreed, people, inside, asked, resampling)
            result["by_gap"].append({"low": low, "high": high, **part})
    return result


def _gaps_of(data: Comparisons) -> tuple[str | None, NDArray[np.float64]]:
    """What gaps are of, and `[P]` gaps."""
    gap = data.gap
    if not np.isnan(gap).all():
        return data.human_kind or "margin", gap
    return "votes" if _has_votes(data) else None, np.abs(2 * data.label - 1)


def _has_votes(data: Comparisons) -> bool:
    """Whether more is known than whom people prefer."""
    return bool((data.votes > 1).any() or (data.label % 0.5 != 0).any())


def _compare(
    agreed: NDArray[np.float64],
    people: NDArray[np.float64] | None,
    places: NDArray[np.intp],
    asked: Asked,
    resampling: Resampling,
) -> Figures:
    """The figures of some pairs."""
    other = None if asked.other is None else asked.other[places]
    columns = {"judge": agreed[places]}
    if people is not None:
        columns |= {"people": people[places], "lead": agreed[places] - people[places]}
    result: Figures = {"pairs": len(places), "people": None, "lead": None}
    measured = resampling.ratios(np.stack([*columns.values()], axis=1), np.ones(len(places)), asked.unit[places], other)
    cases = cases_of(asked.unit[places], other)
    for name, (value, interval) in zip(columns, measured, strict=True):
        result[name] = value
        result[f"{name}_interval"] = interval if name == "lead" else interval_of_share(value, interval, cases)
    return result


def measure_judge_calibration(data: Comparisons, asked: Asked, *, seed: int = 0) -> Figures | None:
    """Whether a judge's probabilities are people's shares of votes; see `reliability`.

    Labels for the noise floor are drawn independently for each pair, as many as it has votes.

    Args:
        data: The pairs.
        asked: The judge's opinions of them.
        seed: Of the simulated labels.

    Returns:
        "pairs", "soft" (whether it says more than sides and ties) and what `reliability` returns; None without
        opinions.
    """
    places = np.flatnonzero(~np.isnan(asked.preference))
    if not len(places):
        return None
    p, pairs = asked.preference[places], asked.pairs[places]
    table = reliability(p, data.label[pairs], one_by_one(p, data.votes[pairs]), seed=seed)
    return {"pairs": len(places), "soft": bool((p % 0.5 != 0).any()), **table}
