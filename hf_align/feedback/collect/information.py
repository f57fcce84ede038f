"""How much the answer to a comparison is expected to say about a reward model, and which comparisons say most together.

A reward model's uncertainty is a normal distribution of the log odds of every candidate pair: their means, and factors
F `[C, k]` of their covariance F F'. The factors come from an ensemble's members, or from the posterior of a linear
Bradley-Terry head.

The answer's expected information is BALD (Houlsby et al. 2011), the mutual information of the answer and the log odds:

    I(y; f) = H(E[sigmoid(f)]) - E[H(sigmoid(f))],   f ~ N(mean, variance), H in nats.

The second term is the answer's own noise, which asking doesn't reduce: where the model knows that people are divided,
there is nothing to learn, however even the pair. A batch is chosen greedily, as BatchBALD (Kirsch et al. 2019), with
the covariance updated by the Fisher information E[p (1 - p)] of each chosen pair, the D-optimal design for
Bradley-Terry (Shen et al. 2025, arXiv 2502.04354): so pairs that say the same aren't asked twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, expit

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
"""Gauss-Hermite quadrature of a standard normal variable."""
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Beliefs:
    """What a reward model expects of C pairs.

    Attributes:
        mean: `[C]` log odds that the first is better.
        factors: `[C, k]`, whose products with each other are the covariances of the log odds.
    """

    mean: NDArray[np.float64]
    factors: NDArray[np.float64]

    @classmethod
    def of_members(cls, log_odds: ArrayLike) -> Beliefs:
        """Mean and covariance of an ensemble's members.

        Args:
            log_odds: `[M, C]` each member's, that the first is better.

        Example:
            >>> from hf_align.feedback.collect.information import Beliefs
            >>> beliefs = Beliefs.of_members([[1.0, 0.5], [3.0, 0.5]])
            >>> beliefs.mean.tolist(), (beliefs.factors @ beliefs.factors.T).tolist()
            ([2.0, 0.5], [[2.0, 0.0], [0.0, 0.0]])
        """
        members = np.asarray(log_odds, dtype=float)
        mean = members.mean(0)
        return cls(mean, (members - mean).T / np.sqrt(max(len(members) - 1, 1)))


def _moments(mean: NDArray, variance: NDArray) -> tuple[NDArray, NDArray]:
    """`[C]` expected information, and E[p (1 - p)]."""
    p = expit(mean[:, None] + np.sqrt(variance)[:, None] * NODES)  # [C, nodes]
    expected = p @ WEIGHTS
    own_noise = (entr(p) + entr(1 - p)) @ WEIGHTS
    return np.maximum(entr(expected) + entr(1 - expected) - own_noise, 0.0), (p * (1 - p)) @ WEIGHTS


def expected_information(mean: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    """Mutual information, in nats, of one answer and normal log odds.

    Args:
        mean: `[C]` of the log odds.
        variance: `[C]` of the log odds.

    Returns:
        `[C]` between 0 (nothing to learn) and log 2.

    Example:
        >>> from hf_align.feedback.collect.information import expected_information
        >>> expected_information([0.0, 0.0, 5.0], [0.0, 4.0, 4.0]).round(3).tolist()
        [0.0, 0.231, 0.044]
    """
    return _moments(np.asarray(mean, dtype=float), np.asarray(variance, dtype=float))[0]


def choose_informative(beliefs: Beliefs, n: int, *, answers: int = 1) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Choose n pairs whose answers together say most about the reward model.

    Args:
        beliefs: What the model expects of the candidates.
        n: Pairs to choose, at most as many as there are.
        answers: Answers that each will get, all of which teach the model before the next is chosen.

    Returns:
        `[n]` places of the pairs, in the order of their choice, and `[n]` the expected information of one answer, given
        the answers to those before.

    Example:
        Two equal pairs and a third of less uncertainty: the second of the equal ones comes last.

        >>> import numpy as np
        >>> from hf_align.feedback.collect.information import Beliefs, choose_informative
        >>> beliefs = Beliefs(np.zeros(3), np.array([[3.0, 0.0], [3.0, 0.0], [0.0, 2.0]]))
        >>> choose_informative(beliefs, 3, answers=3)[0].tolist()
        [0, 2, 1]
    """
    factors = beliefs.factors.astype(float, copy=True)
    free = np.ones(len(factors), dtype=bool)
    places, gains = [], []
    for _ in range(min(n, len(factors))):
        gain, fisher = _moments(beliefs.mean, (factors**2).sum(1))
        best = int(np.where(free, gain, -1.0).argmax())
        places.append(best)
        gains.append(gain[best])
        free[best] = False
        condition(factors, best, answers * fisher[best])
    return np.array(places, dtype=np.intp), np.array(gains)


def condition(factors: NDArray, place: int, precision: float) -> None:
    """Update the factors, in place, by an observation of one pair's log odds with a precision.

    With v = F x the covariances with the observed pair and s = x'x its variance, the covariance loses
    v v' precision / (1 + precision s). Of the factors that is F - a (F x) x' with a as below.
    """
    x = factors[place].copy()
    variance = float(x @ x)
    if variance <= 0:
        return
    left = 1 / np.sqrt(1 + precision * variance)  # share of the deviation in the direction x that stays
    factors -= np.outer(factors @ x, x) * ((1 - left) / variance)
