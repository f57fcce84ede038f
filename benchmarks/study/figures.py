"""Scores of texts compared with every vote: r, one person, pairs, calibration, log-loss beside its floor, entropies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from hf_align.evaluation.calibration import BINS, fit_temperature
from hf_align.statistics import pearson

VOTES = np.arange(-4, 5)
RESAMPLES = 2000


def vote_shares(ratings: Sequence[Sequence[int]]) -> NDArray:
    """`[N, N]` P(i better than j): the share of pairs of one vote on i and one on j, ties half."""
    counts = np.stack([(np.asarray(votes)[:, None] == VOTES).mean(0) for votes in ratings])  # [N, 9]
    wins = (np.sign(VOTES[:, None] - VOTES[None]) + 1) / 2  # [9, 9]
    return counts @ wins @ counts.T


def figures(
    scores: NDArray, ratings: Sequence[Sequence[int]], *, temperature: float | None = None, seed: int = 0
) -> dict[str, Any]:
    """Figures of one domain's scores, with 95% intervals by resampling texts.

    Args:
        scores: `[N]` rewards.
        ratings: Each text's votes.
        temperature: Fitted elsewhere (on validation); None: fitted here.
        seed: Of the resampling.

    Returns:
        `r` with the mean rating; `person_r`, of one rater with the others' mean, and `gain` = r - person_r with its
        paired interval; over all pairs of texts `nll` against single votes, `floor`, the least that any model could
        have, and `nll_scaled` with `temperature`; `entropy_r`, the correlation of the entropies of the model's and the
        votes' P(i better than j).
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(scores), size=(RESAMPLES, len(scores)))  # [B, N]
    mean = np.array([np.mean(votes) for votes in ratings])
    shares = vote_shares(ratings)
    fitted: Any = minimize_scalar(
        lambda log: log_loss(scores / np.exp(log), shares).mean(), bounds=(-3, 4), method="bounded"
    )
    temperature = float(np.exp(fitted.x)) if temperature is None else temperature
    r = pearson(scores[draws], mean[draws])
    person, people = one_person(ratings, draws)
    pairs = {
        "nll": log_loss(scores, shares),
        "nll_scaled": log_loss(scores / temperature, shares),
        "floor": entropy(shares),
    }
    result: dict[str, Any] = {
        "texts": len(scores),
        "r": float(pearson(scores, mean)),
        "r_interval": interval(r),
        "person_r": person,
        "gain": float(pearson(scores, mean)) - person,
        "gain_interval": interval(r - people),
        "temperature": temperature,
    }
    for name, values in pairs.items():
        result[name], result[f"{name}_interval"] = (
            float(off_diagonal(values)),
            interval(np.array([off_diagonal(values, np.bincount(draw, minlength=len(scores))) for draw in draws])),
        )
    i, j = np.triu_indices(len(scores), 1)
    own, votes = entropy(expit(scores[i] - scores[j])), entropy(shares[i, j])
    result["entropy_r"] = float(pearson(own, votes))
    return result


def ordered_right(scores: NDArray, means: NDArray, gap: float = 0.5) -> tuple[NDArray, NDArray]:
    """Points `[N, N]` of pairs whose order people agree on (1, or half for a tie), and which those are."""
    apart = means[:, None] - means[None] > gap
    return apart * (np.sign(scores[:, None] - scores[None]) + 1) / 2, apart.astype(float)


def temperature_of(scores: NDArray, shares: NDArray) -> float:
    """The temperature with the least log-loss over all pairs of texts."""
    i, j = np.triu_indices(len(scores), 1)
    return fit_temperature(scores[i] - scores[j], shares[i, j])[0]


def calibration_errors(scores: NDArray, shares: NDArray) -> NDArray:
    """`[BINS, N, N]` predicted less observed share of each pair, in the bin of its prediction; mirrored pairs, too."""
    p = expit(scores[:, None] - scores[None])
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    error = p - shares
    np.fill_diagonal(error, 0)
    return np.stack([np.where(place == number, error, 0) for number in range(BINS)])


def calibration_error(scores: NDArray, shares: NDArray) -> float:
    """ECE over all pairs of different texts, mirrored."""
    size = len(scores)
    return float(np.abs(calibration_errors(scores, shares).sum((1, 2))).sum() / (size * (size - 1)))


def log_loss(scores: NDArray, shares: NDArray) -> NDArray:
    """`[N, N]` expected -log P(vote) of Bradley-Terry, over the pairs of votes."""
    difference = scores[:, None] - scores[None]
    return shares * np.logaddexp(0, -difference) + (1 - shares) * np.logaddexp(0, difference)


def entropy(p: NDArray) -> NDArray:
    """Entropy of a yes-or-no with probability p, in nats."""
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return -q * np.log(q) - (1 - q) * np.log1p(-q)


def off_diagonal(values: NDArray, counts: NDArray | None = None) -> float:
    """Mean over pairs of different texts, each text counting `counts` times."""
    counts = np.ones(len(values)) if counts is None else counts.astype(float)
    weight = counts.sum() ** 2 - (counts**2).sum()
    return (counts @ values @ counts - (counts**2 * np.diag(values)).sum()) / weight


def one_person(ratings: Sequence[Sequence[int]], draws: NDArray) -> tuple[float, NDArray]:
    """r of the j-th rater with the mean of the text's others, averaged over j: over all texts, and in each resample."""
    total = np.array([sum(votes) for votes in ratings], dtype=float)
    count = np.array([len(votes) for votes in ratings])
    whole, resampled = [], np.zeros(len(draws))
    for rater in range(count.min()):
        own = np.array([votes[rater] for votes in ratings], dtype=float)
        others = (total - own) / (count - 1)
        whole.append(float(pearson(own, others)))
        resampled += pearson(own[draws], others[draws])
    return float(np.mean(whole)), resampled / len(whole)


def interval(values: NDArray) -> list[float]:
    """The middle 95% of resampled values."""
    return [float(each) for each in np.percentile(values, [2.5, 97.5])]
