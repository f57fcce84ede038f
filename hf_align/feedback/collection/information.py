"""How much the answer to a comparison is expected to teach a reward model, and which comparisons teach most together.

A reward model's uncertainty is a normal distribution of the log odds of every candidate pair: their means, and factors
F `[C, k]` of their covariance F F'. The factors come from an ensemble's members, or from the posterior of a linear
Bradley-Terry head (`hf_align.feedback.collection.head`).

Asked about pair i, one person's answer observes its log odds with the precision w = E[p (1 - p)], the Fisher
information of Bradley-Terry. It lowers the variance of the pool's pairs, on average over all C of them, by

    mean_j cov(i, j)^2 w / (1 + w var(i)).

This is the design that is optimal for predictions (V- or I-optimality of Bayesian experimental design, Chaloner and
Verdinelli 1995; as the expected predictive information gain of Bickford Smith et al. 2023, linear and normal). The
factor w is the answer's own noise: where people are certain to agree, or certain to be divided, an answer teaches
little. Information about the model's parameters instead (`expected_information`: BALD, Houlsby et al. 2011, and the
D-optimal design of Shen et al. 2025, arXiv 2502.04354) asks about outliers; docs/results/feedback.md compares them.

A batch is chosen one by one, as by BatchBALD (Kirsch et al. 2019): each choice updates the covariance as if it had been
answered, so pairs that say the same aren't asked twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, expit

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
"""Gauss-Hermite quadrature of a standard normal variable."""
WEIGHTS = WEIGHTS / WEIGHTS.sum()

Aim = Literal["predictions", "parameters"]


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
            >>> from hf_align.feedback.collection.information import Beliefs
            >>> beliefs = Beliefs.of_members([[1.0, 0.5], [3.0, 0.5]])
            >>> beliefs.mean.tolist(), (beliefs.factors @ beliefs.factors.T).tolist()
            ([2.0, 0.5], [[2.0, 0.0], [0.0, 0.0]])
        """
        members = np.asarray(log_odds, dtype=float)
        mean = members.mean(0)
        return cls(mean, (members - mean).T / np.sqrt(max(len(members) - 1, 1)))


def expected_information(mean: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    """BALD: mutual information, in nats, of one answer y and the pair's log odds f.

    I(y; f) = H(E[sigmoid(f)]) - E[H(sigmoid(f))] with f ~ N(mean, variance).

    Args:
        mean: `[C]` of the log odds.
        variance: `[C]` of the log odds.

    Returns:
        `[C]` between 0 (nothing to learn) and log 2.

    Example:
        >>> from hf_align.feedback.collection.information import expected_information
        >>> expected_information([0.0, 0.0, 5.0], [0.0, 4.0, 4.0]).round(3).tolist()
        [0.0, 0.231, 0.044]
    """
    p = _probabilities(np.asarray(mean, dtype=float), np.asarray(variance, dtype=float))
    expected = p @ WEIGHTS
    return np.maximum(entr(expected) + entr(1 - expected) - (entr(p) + entr(1 - p)) @ WEIGHTS, 0.0)


def choose_informative(
    beliefs: Beliefs,
    n: int,
    *,
    answers: int = 1,
    aim: Aim = "predictions",
    shortlist: int = 2000,
    pairs: ArrayLike | None = None,
    room: ArrayLike | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Choose n pairs whose answers together teach the reward model most.

    Args:
        beliefs: What the model expects of the candidates.
        n: Pairs to choose, at most as many as there are.
        answers: Answers that each will get, all of which teach the model before the next is chosen.
        aim: "predictions": lower the variance of all candidates' log odds; "parameters": say most about the model.
        shortlist: Only so many candidates, and at least 4 n, that teach most by themselves are compared at each choice.
        pairs: `[C, 2]` numbers of the responses of each pair, with `room`.
        room: `[R]` in how many more pairs each response may be. What is peculiar to one response doesn't average out
            over its pairs, and the covariance doesn't know of it: so a response that is asked about again and again
            teaches less than expected. Default: in any number.

    Returns:
        `[n]` places of the pairs (fewer if there is no room for more), in the order of their choice, and `[n]` what one
        answer is expected to teach, given the answers to those before: the fall of the candidates' mean variance
        (squared log odds), or nats.

    Example:
        Of two equal pairs the second comes last: the first one's answers tell about it.

        >>> import numpy as np
        >>> from hf_align.feedback.collection.information import Beliefs, choose_informative
        >>> beliefs = Beliefs(np.zeros(3), np.array([[3.0, 0.0], [3.0, 0.0], [0.0, 2.0]]))
        >>> choose_informative(beliefs, 3, answers=3)[0].tolist()
        [0, 2, 1]
    """
    factors = beliefs.factors.astype(float, copy=True)  # [C, k]
    pool = factors.T @ factors / max(len(factors), 1)  # [k, k]
    left = None if room is None else np.array(room)
    of_pairs = np.zeros((len(factors), 2), dtype=int) if pairs is None else np.asarray(pairs)
    alone = _gains(beliefs.mean, factors, pool, aim)[0]
    if left is not None:
        alone = np.where((left[of_pairs] > 0).all(1), alone, -1)
    listed = np.argsort(-alone, kind="stable")[: max(shortlist, 4 * n)]
    listed = listed[alone[listed] >= 0]
    mean, factors, of_pairs = beliefs.mean[listed], factors[listed], of_pairs[listed]
    free = np.ones(len(listed), dtype=bool)
    chosen, gains = [], []
    while len(chosen) < n and free.any():
        gain, precision = _gains(mean, factors, pool, aim)
        best = int(np.where(free, gain, -1.0).argmax())
        free[best] = False
        if left is not None:
            left[of_pairs[best]] -= 1
            free &= (left[of_pairs] > 0).all(1)
        chosen.append(listed[best])
        gains.append(gain[best])
        condition(factors, pool, best, answers * precision[best])
    return np.array(chosen, dtype=np.intp), np.array(gains)


def _gains(mean: NDArray, factors: NDArray, pool: NDArray, aim: Aim) -> tuple[NDArray, NDArray]:
    """`[C]` what one answer teaches, and the precision w of each pair's answer."""
    variance = np.einsum("ck,ck->c", factors, factors)
    p = _probabilities(mean, variance)
    precision = (p * (1 - p)) @ WEIGHTS
    if aim == "parameters":
        return expected_information(mean, variance), precision
    squares = np.einsum("ck,ck->c", factors @ pool, factors)  # mean_j cov(i, j)^2
    return squares * precision / (1 + precision * variance), precision


def condition(factors: NDArray, pool: NDArray, place: int, precision: float) -> None:
    """Update factors F and pool F'F / C, in place, by an observation of one pair's log odds with a precision w.

    With its factors x and variance s = x'x, the covariance loses F x x'F' w / (1 + w s): F becomes F (I - a x x') with
    1 - a s = (1 + w s)^-1/2.
    """
    x = factors[place].copy()
    variance = float(x @ x)
    if variance <= 0:
        return
    a = (1 - 1 / np.sqrt(1 + precision * variance)) / variance
    factors -= np.outer(factors @ x, a * x)
    pool -= np.outer(pool @ x, a * x)
    pool -= np.outer(a * x, x @ pool)


def _probabilities(mean: NDArray, variance: NDArray) -> NDArray:
    """`[C, nodes]` P(first is better) at the nodes of the log odds' distribution."""
    return expit(mean[:, None] + np.sqrt(variance)[:, None] * NODES)
