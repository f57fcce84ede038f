"""Statistics of pairs: what length has to do with who wins, and how far probabilities are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hf_align.statistics import Resampling

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""From a generator and n, n sets of simulated labels `[n, P]`."""
BINS = 15
SIMULATIONS = 100
"""Sets of labels simulated from the probabilities themselves, for the noise floor."""
_SETS = 20  # sets of labels held at once
PRIOR_VARIANCE = 100.0
"""Of the normal prior on the weight of length, which keeps it finite where length alone decides who wins."""
STEPS, LONGEST_STEP, LARGEST = 40, 2.0, 20.0
"""Of Newton's method: number, longest, and largest intercept (that of a policy that wins everything is infinite)."""
DRAWN = 50
"""Resamples fitted at once."""


def reliability(
    p: NDArray[np.float64],
    label: NDArray[np.float64],
    draw: Draw,
    bins: int = BINS,
    *,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """How far probabilities that the first of two is better differ from shares of votes; pairs are mirrored.

    Args:
        p: `[P]` probabilities.
        label: `[P]` shares of votes for the first.
        draw: Simulates labels for which the probabilities are right.
        bins: Equal bins of [0, 1]; a probability of exactly 1 belongs to the last one.
        simulations: Sets of simulated labels.
        seed: Their seed.

    Returns:
        "ece": mean absolute difference of predicted and observed share over bins, weighted by pairs. "ece_floor" and
        "ece_floor_high": mean and 95% quantile of the ECE of somebody who is right about every probability, on the
        same pairs with as many votes. "bins": for each bin with pairs "low", "high", "pairs" (mirrored ones too),
        "predicted", "observed", and "expected": the 95% range of "observed" where the probabilities are right.
    """
    mirrored = 1 - p
    places, mirror_places = (np.minimum((side * bins).astype(np.intp), bins - 1) for side in (p, mirrored))
    rows = np.arange(len(p))
    # A pair's error p - y counts in its bin, and with the other sign in the bin of its mirror image.
    signs = np.zeros((len(p), bins))
    signs[rows, places] += 1
    np.subtract.at(signs, (rows, mirror_places), 1)
    total = np.bincount(places, minlength=bins) + np.bincount(mirror_places, minlength=bins)
    predicted = np.bincount(places, p, minlength=bins) + np.bincount(mirror_places, mirrored, minlength=bins)
    errors = (p - label) @ signs
    rng = np.random.default_rng(seed)
    simulated = np.concatenate(
        [(p - draw(rng, min(_SETS, simulations - start))) @ signs for start in range(0, simulations, _SETS)]
    )
    floors = np.abs(simulated).sum(axis=1) / total.sum()
    low, high = np.quantile(simulated, [0.025, 0.975], axis=0)
    return {
        "ece": float(np.abs(errors).sum() / total.sum()),
        "ece_floor": float(floors.mean()),
        "ece_floor_high": float(np.quantile(floors, 0.95)),
        "bins": [
            {
                "low": place / bins,
                "high": (place + 1) / bins,
                "pairs": int(total[place]),
                "predicted": float(predicted[place] / total[place]),
                "observed": float((predicted[place] - errors[place]) / total[place]),
                "expected": [float((predicted[place] - error[place]) / total[place]) for error in (high, low)],
            }
            for place in np.flatnonzero(total)
        ],
    }


def one_by_one(p: NDArray[np.float64], votes: NDArray[np.intp]) -> Draw:
    """Independent votes on each pair.

    Args:
        p: `[P]` probability that a vote is for the first.
        votes: `[P]` votes on each pair.
    """
    return lambda rng, sets: rng.binomial(votes, p, (sets, len(p))) / votes


def length_controlled(
    wins: NDArray[np.float64],
    longer: NDArray[np.float64],
    resampling: Resampling,
    unit: NDArray[np.intp],
    other: NDArray[np.intp] | None = None,
) -> dict[str, Any]:
    """The win rate at equal length, by a logistic regression of the win on the difference of lengths.

        P(win) = sigmoid(a + b tanh(d / sd(d)))        win rate at d = 0: sigmoid(a)

    with d by how much the policy's response is longer; a tie counts as half a win. This is AlpacaEval 2's
    length-controlled win rate (Dubois et al. 2024, arXiv:2404.04475) without its term for the difficulty of an
    instruction, which needs the results of many models. b has a normal prior with variance 100.

    Args:
        wins: `[N]` 1, 1/2 or 0.
        longer: `[N]` d.
        resampling: Draws of prompts.
        unit: `[N]` the prompt of each.
        other: `[N]` second unit, for pairs of two texts; see `Resampling.sums`.

    Returns:
        "length_controlled" with "length_controlled_interval", "length_weight" (b) with "length_weight_interval",
        "mean_longer", and "within": whether both longer and shorter responses (or equal ones) occur, so that nothing is
        extrapolated. NaN where all responses are longer by the same.
    """
    facts = {"mean_longer": float(longer.mean()), "within": bool(longer.min() <= 0 <= longer.max())}
    if (x := bounded_lengths(longer)) is None:
        nothing = {"length_controlled": np.nan, "length_controlled_interval": [np.nan] * 2}
        return {**nothing, "length_weight": np.nan, "length_weight_interval": [np.nan] * 2, **facts}
    fitted = fit_logistic(x, wins, np.ones((1, len(wins))))[0]
    parts = []
    for start in range(0, resampling.resamples, DRAWN):
        counts = resampling.counts[:, start : start + DRAWN].astype(float)
        parts.append(fit_logistic(x, wins, (counts[unit] if other is None else counts[unit] * counts[other]).T))
    drawn = np.concatenate(parts)
    return {
        "length_controlled": float(expit(fitted[0])),
        "length_controlled_interval": resampling.interval(expit(drawn[:, 0])),
        "length_weight": float(fitted[1]),
        "length_weight_interval": resampling.interval(drawn[:, 1]),
        **facts,
    }


def bounded_lengths(longer: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """tanh(d / sd(d)) of differences of lengths `[N]`; None where all are the same and not 0."""
    deviation = longer.std()
    if not deviation and longer.any():
        return None
    return np.tanh(longer / deviation) if deviation else longer


def length_information(x: NDArray[np.float64], a: float, b: float) -> NDArray[np.float64]:
    """`[2, 2]` observed information of a and b in `fit_logistic`, its prior included."""
    p = expit(a + b * x)
    spread = p * (1 - p)
    aa, ab, bb = spread.sum() + 1e-12, spread @ x, spread @ (x * x) + 1 / PRIOR_VARIANCE
    return np.array([[aa, ab], [ab, bb]])


def fit_logistic(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit P(y) = sigmoid(a + b x) by Newton's method, once for each row of weights.

    Args:
        x: `[N]`.
        y: `[N]` shares from 0 to 1.
        weights: `[R, N]` how often each row counts.

    Returns:
        `[R, 2]` a and b: the maximum of the likelihood times the prior of b, |a| at most 20.
    """
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        p = expit(a[:, None] + b[:, None] * x)  # [R, N]
        missing, spread = weights * (y - p), weights * p * (1 - p)
        slope_a, slope_b = missing.sum(1), missing @ x - b / PRIOR_VARIANCE
        aa, ab, bb = spread.sum(1) + 1e-12, spread @ x, spread @ (x * x) + 1 / PRIOR_VARIANCE
        determinant = np.maximum(aa * bb - ab * ab, 1e-12)
        steps = np.stack([bb * slope_a - ab * slope_b, aa * slope_b - ab * slope_a]) / determinant
        steps /= np.maximum(1, np.abs(steps).max(0) / LONGEST_STEP)
        a, b = np.clip(a + steps[0], -LARGEST, LARGEST), b + steps[1]
        if np.abs(steps).max() < 1e-9:
            break
    return np.stack([a, b], axis=1)
