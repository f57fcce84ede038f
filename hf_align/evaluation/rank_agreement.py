"""Rank agreement of a reward model with people: Kendall's tau within each ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.statistics import Resampling, kendall_tau


def measure_rank_agreement(
    data: Comparisons, scores: NDArray[np.float64], resampling: Resampling
) -> dict[str, Any] | None:
    """Mean Kendall's tau-b between the model's and people's scores of one prompt's responses.

    Ties count in neither direction. A response below all ranked ties with others like it.

    Args:
        data: Responses with people's scores or ranks.
        scores: `[R]` the model's.
        resampling: Draws of `data`'s units.

    Returns:
        "tau" with "tau_interval", "rankings" in the mean, and the rankings without a tau: "constant_scores" (the model
        scores all their responses alike) and "constant_people" (people do); "constant_prompts" has the row numbers of
        up to 20 with constant scores. None if no prompt has a ranking of two or more, and for pairs, where tau is
        2 x accuracy - 1.
    """
    rankings = _rankings(data) if data.layout in ("rankings", "ratings") else []
    if not rankings:
        return None
    taus = np.asarray([kendall_tau(scores[ranking], data.human[ranking]) for ranking in rankings])
    flat = np.asarray([np.ptp(scores[ranking]) == 0 for ranking in rankings])
    same = np.asarray([np.ptp(data.human[ranking]) == 0 for ranking in rankings])
    counted = ~np.isnan(taus)
    used = [ranking for ranking, count in zip(rankings, counted, strict=True) if count]
    if data.unit == "prompts":
        unit = np.asarray([data.prompt_of[ranking[0]] for ranking in used], dtype=np.intp)
        interval = resampling.ratio(taus[counted], np.ones(len(used)), unit)[1]
    else:
        drawn = np.stack([_resampled_tau(data, scores, ranking, resampling) for ranking in used] or [np.empty(0)])
        interval = resampling.interval(drawn.mean(axis=0))
    return {
        "tau": float(taus[counted].mean()) if used else float("nan"),
        "tau_interval": interval,
        "rankings": len(used),
        "constant_scores": int((flat & ~same).sum()),
        "constant_people": int(same.sum()),
        "constant_prompts": [int(data.row_of[rankings[place][0]]) for place in np.flatnonzero(flat & ~same)[:20]],
    }


def _rankings(data: Comparisons) -> list[NDArray[np.intp]]:
    """Entries of each ranking: those of a row, or of a prompt's rated responses, that people scored."""
    scored = np.flatnonzero(~np.isnan(data.human))
    key = (data.group_of * len(data.prompts) + data.prompt_of)[scored]
    order = np.argsort(key, kind="stable")
    parts = np.split(scored[order], np.flatnonzero(np.diff(key[order])) + 1)
    return [part for part in parts if len(part) > 1]


def _resampled_tau(
    data: Comparisons, scores: NDArray[np.float64], ranking: NDArray[np.intp], resampling: Resampling
) -> NDArray[np.float64]:
    """`[resamples]` tau-b of one ranking with its texts redrawn, from the pairs that are measured."""
    inside = np.zeros(len(scores), dtype=bool)
    inside[ranking] = True
    pairs = np.flatnonzero(inside[data.first] & inside[data.second])
    first, second = data.first[pairs], data.second[pairs]
    by_model, by_people = np.sign(scores[first] - scores[second]), np.sign(data.human[first] - data.human[second])
    columns = np.stack([by_model * by_people, by_model**2, by_people**2], axis=1)
    sums = resampling.sums(columns, data.text_of[first], data.text_of[second])
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / np.sqrt(sums[:, 1] * sums[:, 2])
