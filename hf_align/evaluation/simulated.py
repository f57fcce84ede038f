"""Judgements that people would give if a model's probabilities were right, for the noise floor of its calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hf_align.data.comparisons import Comparisons
from hf_align.pair_statistics import Draw, one_by_one

_LEVELS = 32
"""Levels of equal mass to which votes are rounded; within a level two count half: 1/1,000 of a share's variance."""


def judgements(data: Comparisons, scores: NDArray[np.float64], pairs: NDArray[np.intp]) -> Draw:
    """Simulate people's labels of pairs under P(first is better) = sigmoid(difference of scores).

    Pairs that were voted on one by one get independent votes. Where responses were ranked, scored or rated, a text's
    votes count in all of its pairs, so the votes of texts are drawn: a score plus Gumbel noise, which is above another
    such vote with probability sigmoid(difference) (Yellott, 1977). A pair's label is the share of its pairs of votes.

    Args:
        data: Responses and pairs; a text has as many votes as ratings, or one.
        scores: `[R]` the model's.
        pairs: Numbers of the P pairs.
    """
    first, second = data.first[pairs], data.second[pairs]
    counts = np.asarray([len(votes) for votes in data.ratings], dtype=np.intp)
    if data.layout == "pairs" and not counts.any():
        return one_by_one(expit(scores[first] - scores[second]), data.votes[pairs])
    entries, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    return _of_texts(scores[entries], np.maximum(counts[entries], 1), *places.reshape(2, -1))


def _of_texts(scores: NDArray, counts: NDArray, first: NDArray, second: NDArray) -> Draw:
    """Votes of texts: `scores` and `counts` (of votes) `[S]`, and for each pair its two texts `[P]`."""
    of_vote = np.repeat(np.arange(len(scores)), counts)

    def one_set(rng: np.random.Generator) -> NDArray[np.float64]:
        votes = scores[of_vote] + rng.gumbel(size=len(of_vote))
        if len(of_vote) == len(scores):
            return (votes[first] > votes[second]).astype(float)
        edges = np.quantile(votes, np.arange(1, _LEVELS) / _LEVELS)
        places = of_vote * _LEVELS + np.searchsorted(edges, votes)
        shares = np.bincount(places, minlength=len(scores) * _LEVELS).reshape(-1, _LEVELS) / counts[:, None]
        shares = shares.astype(np.float32)
        below = np.cumsum(shares, axis=1) - shares / 2  # P(a vote is below each level), half of those in it
        return np.einsum("pl,pl->p", shares[first], below[second]).astype(float)

    return lambda rng, sets: np.stack([one_set(rng) for _ in range(sets)])
