"""Calibration: whether a difference of scores d means P(first is better) = sigmoid(d), as Bradley-Terry says.

Pairs are mirrored: with the better response always first every outcome is 1, and even a perfectly calibrated model
would seem badly calibrated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import entr, expit

from hf_align.data.comparisons import Comparisons
from hf_align.evaluation.simulated import judgements
from hf_align.pair_statistics import BINS, SIMULATIONS, Draw, reliability
from hf_align.statistics import Resampling

_WIDEST = np.log(1e3)  # the fitted temperature lies within a factor of 1,000 of the root mean square difference


def measure_calibration(
    data: Comparisons,
    scores: NDArray[np.float64],
    resampling: Resampling,
    *,
    bins: int = BINS,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """Calibration of a reward model as it is, and after fitting a temperature.

    All pairs count, undecided ones with their share of votes. The temperature divides all scores. It is judged on pairs
    that it wasn't fitted on: fitted on one half of the prompts (or texts) it is judged on the other, and the other way
    round.

    Args:
        data: The pairs.
        scores: `[R]` the model's.
        resampling: Draws of `data`'s units.
        bins: Equal bins of the predicted probability.
        simulations: See `SIMULATIONS`.
        seed: Seed of the simulated labels and of the halves.

    Returns:
        "pairs", "soft_labels" (whether labels are shares of several votes), "raw" and "fitted" as in
        `calibration_table`, and "temperature" with "value" (fitted on all pairs), "halves" (the two that were judged),
        "at_limit" (whether the fit ran into a limit: scores that order all pairs want a temperature of 0, those that
        order none an infinite one) and "judged_pairs". "fitted" and "temperature" are None for scores without
        differences or fewer than four units.
    """
    difference = scores[data.first] - scores[data.second]
    unit, other = data.pair_units
    draw = judgements(data, scores, np.arange(len(difference)))
    result: dict[str, Any] = {
        "pairs": len(difference),
        "soft_labels": bool((data.label % 0.5 != 0).any()),
        "raw": calibration_table(
            difference, data.label, draw, unit, other, resampling, bins, simulations=simulations, seed=seed
        ),
        "temperature": None,
        "fitted": None,
    }
    side = np.random.default_rng(seed).permutation(data.units) % 2
    half = _halves(unit, other, side)
    if not difference.any() or half is None:
        return result
    value, at_limit = fit_temperature(difference, data.label)
    halves = [fit_temperature(difference[half == each], data.label[half == each])[0] for each in (0, 1)]
    judged = half >= 0
    result["temperature"] = {
        "value": value,
        "halves": halves,
        "at_limit": at_limit,
        "judged_pairs": int(judged.sum()),
    }
    scaled = scores / np.where(side[data.unit_of] == 0, halves[1], halves[0])
    result["fitted"] = calibration_table(
        (scaled[data.first] - scaled[data.second])[judged],
        data.label[judged],
        judgements(data, scaled, np.flatnonzero(judged)),
        unit[judged],
        None if other is None else other[judged],
        resampling,
        bins,
        simulations=simulations,
        seed=seed,
    )
    return result


def _halves(unit: NDArray, other: NDArray | None, side: NDArray) -> NDArray[np.intp] | None:
    """`[P]` 0 or 1 for pairs of one half of the units, -1 for pairs across; None if a half has no pair."""
    half = side[unit] if other is None else np.where(side[unit] == side[other], side[unit], -1)
    return half if (half == 0).any() and (half == 1).any() and len(np.unique(unit)) >= 2 else None


def fit_temperature(difference: NDArray[np.float64], label: NDArray[np.float64]) -> tuple[float, bool]:
    """The temperature with the least negative log-likelihood of the labels, and whether it lies at a limit.

    Args:
        difference: `[P]` differences of scores, not all 0.
        label: `[P]` P(first is better).
    """
    scale = float(np.sqrt(np.mean(difference**2))) or 1.0

    def loss(log_temperature: float) -> float:
        return float(np.mean(_nll(difference / (scale * np.exp(log_temperature)), label)))

    best = minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded", options={"xatol": 1e-6})
    return scale * float(np.exp(best.x)), bool(abs(best.x) > 0.99 * _WIDEST)


def _nll(difference: NDArray, label: NDArray) -> NDArray[np.float64]:
    """`[P]` -label log sigmoid(d) - (1 - label) log sigmoid(-d), for any d."""
    return label * np.logaddexp(0, -difference) + (1 - label) * np.logaddexp(0, difference)


def calibration_table(
    difference: NDArray[np.float64],
    label: NDArray[np.float64],
    draw: Draw,
    unit: NDArray[np.intp],
    other: NDArray[np.intp] | None,
    resampling: Resampling,
    bins: int = BINS,
    *,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """Calibration of P(first is better) = sigmoid(difference) on mirrored pairs.

    Args:
        difference: `[P]` differences of scores.
        label: `[P]` shares of votes for the first.
        draw: Simulates labels for which the probabilities are right.
        unit: `[P]` unit of the bootstrap; `other` likewise, if pairs have two.
        other: See `unit`.
        resampling: Draws of the units.
        bins: Equal bins of [0, 1]; a probability of exactly 1 belongs to the last one.
        simulations: Sets of simulated labels.
        seed: Their seed.

    Returns:
        What `reliability` does, and "brier" and "nll" against single votes, with "..._interval" and "..._floor" (that
        of the vote shares themselves).
    """
    p = expit(difference)
    table = reliability(p, label, draw, bins, simulations=simulations, seed=seed)
    losses = np.stack([label * (1 - p) ** 2 + (1 - label) * p**2, _nll(difference, label)], axis=1)
    floors_of = {"brier": label * (1 - label), "nll": entr(label) + entr(1 - label)}
    measured = resampling.ratios(losses, np.ones(len(p)), unit, other)
    for (name, floor), (value, interval) in zip(floors_of.items(), measured, strict=True):
        table[name], table[f"{name}_interval"], table[f"{name}_floor"] = value, interval, float(floor.mean())
    return table
