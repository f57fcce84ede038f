"""What a judge's scores say about policies: their means, the parts of the data, and responses to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_align.collators.rows import Side, text_of
from hf_align.evaluation.win_rate import wins_of
from hf_align.statistics import Resampling, groups

SHOWN = 20
"""Prompts listed as best and as worst."""


def with_gain(
    name: str, values: ArrayLike, before: ArrayLike | None, resampling: Resampling, unit: NDArray[np.intp]
) -> dict[str, Any]:
    """Mean of a policy's `[N]` values with its interval, and its paired gain over the reference's.

    Returns:
        `name` and `name_interval`; unless it is the reference (`before` is None), "gain" and "gain_interval".
    """
    given = np.asarray(values, dtype=float)
    ones = np.ones(len(given))
    mean, interval = resampling.ratio(given, ones, unit)
    figures: dict[str, Any] = {name: mean, f"{name}_interval": interval}
    if before is not None:
        gain, interval = resampling.ratio(given - np.asarray(before, dtype=float), ones, unit)
        figures |= {"gain": gain, "gain_interval": interval}
    return figures


def measure_domains(
    scores: Mapping[str, Sequence[float]],
    reference: str,
    domains: Sequence[str],
    resampling: Resampling,
    unit: NDArray[np.intp],
) -> dict[str, dict[str, Any]] | None:
    """Win rate and gain of every policy in each part of the data.

    Args:
        scores: The judge's `[N]` scores of the responses by policy.
        reference: Name of the reference.
        domains: `[N]` part of the data that each prompt belongs to.
        resampling: Draws of prompts.
        unit: `[N]` the prompt of each.

    Returns:
        By part: "prompts" (distinct ones) and "policies": by name "win_rate" and "gain" with intervals. None where the
        data has one part.
    """
    parts = groups(domains)
    if len(parts) < 2:
        return None
    table = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    result: dict[str, dict[str, Any]] = {}
    for part, rows in parts.items():
        policies: dict[str, dict[str, Any]] = {}
        for name, values in table.items():
            if name == reference:
                continue
            before, ones = table[reference][rows], np.ones(len(rows))
            wins = wins_of(values[rows], before)
            rate, rates = resampling.share(wins, unit[rows])
            gain, gains = resampling.ratio(values[rows] - before, ones, unit[rows])
            policies[name] = {"win_rate": rate, "win_rate_interval": rates, "gain": gain, "gain_interval": gains}
        result[part] = {"prompts": len(np.unique(unit[rows])), "policies": policies}
    return result


def best_and_worst(
    prompts: Sequence[Side],
    texts: Mapping[str, Sequence[str]],
    scores: Mapping[str, Sequence[float]],
    domains: Sequence[str],
    reference: str,
    count: int = SHOWN,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """For every policy the prompts to which a judge likes its response most, and least, beside the reference's.

    Args:
        prompts: `[N]` prompts.
        texts: `[N]` responses by policy.
        scores: The judge's `[N]` scores by policy.
        domains: `[N]` part of the data that each belongs to.
        reference: Name of the reference.
        count: Most prompts of either list.

    Returns:
        By name "best" and "worst", the largest differences first: "row", "prompt" (text), "domain", "response",
        "score", "reference_response", "reference_score". Equal scores are in neither.
    """
    result = {}
    for name in scores:
        if name == reference:
            continue
        difference = np.asarray(scores[name], dtype=float) - np.asarray(scores[reference], dtype=float)
        order = np.argsort(-difference, kind="stable")
        best, worst = order[difference[order] > 0][:count], order[difference[order] < 0][::-1][:count]
        result[name] = {
            label: [
                {
                    "row": int(row),
                    "prompt": text_of(prompts[row]),
                    "domain": domains[row],
                    "response": texts[name][row],
                    "score": float(scores[name][row]),
                    "reference_response": texts[reference][row],
                    "reference_score": float(scores[reference][row]),
                }
                for row in rows
            ]
            for label, rows in (("best", best), ("worst", worst))
        }
    return result
