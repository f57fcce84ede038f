"""Gao's forms of over-optimisation: a judge's score along the KL from the start, fitted, with its turning point.

Gao, Schulman and Hilton (2023) describe the judge's gain by two forms in d = sqrt(KL), whose maximum is the turning
point:

    best-of-n                  d (alpha - beta d)        d* = alpha / (2 beta)
    reinforcement learning     d (alpha - beta log d)    d* = exp(alpha / beta - 1)

Notation: P prompts, K points of a course (sizes n, or evaluations of a run).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_align.errors import UserError
from hf_align.statistics import Interval, Resampling

Kind = Literal["bon", "rl"]
GOOD_FIT = 0.8
"""Share of the points' variance below which a form doesn't describe a course."""


@dataclass(frozen=True)
class GaoFit:
    """One of Gao's forms, fitted to a judge's scores.

    Attributes:
        kind: "bon": d (alpha - beta d); "rl": d (alpha - beta log d).
        alpha: Initial rise per sqrt(nat).
        beta: How fast it bends down.
        start: Score at KL 0.
        explained: Share of the points' variance that the form explains (R squared); NaN for constant scores.
        turning_point: KL at the form's maximum, in nats: 0 if it falls from the start, infinite if it never falls.
        turning_interval: 95% bootstrap interval of the turning point; the upper end may be infinite.
        smallest_kl: Smallest measured KL above 0.
        largest_kl: Largest measured KL.

    Example:
        >>> from hf_align.evaluation import fit_gao
        >>> fit = fit_gao([0.0, 1.0, 4.0, 9.0, 16.0], [0.0, 3.0, 4.0, 3.0, 0.0], kind="bon")
        >>> round(fit.alpha, 6), round(fit.beta, 6), round(fit.turning_point, 6), fit.turns
        (4.0, 1.0, 4.0, True)
    """

    kind: Kind
    alpha: float
    beta: float
    start: float
    explained: float
    turning_point: float
    turning_interval: Interval
    smallest_kl: float
    largest_kl: float

    def predict(self, kl: ArrayLike) -> NDArray[np.float64]:
        """The form's scores at KLs."""
        return _form(np.asarray(kl, dtype=float), self.alpha, self.beta, self.start, self.kind)

    @property
    def describes(self) -> bool:
        """Whether the form describes the points at all."""
        return self.explained >= GOOD_FIT

    @property
    def turns(self) -> bool:
        """Whether there is a turning point in the measured range."""
        return self.describes and self.turning_point <= self.largest_kl

    @property
    def is_sure(self) -> bool:
        """Whether the turning point's whole interval is in the measured range."""
        return self.turns and self.turning_interval[1] <= self.largest_kl

    def __str__(self) -> str:
        """One sentence: the turning point with its interval, or why there is none."""
        if not self.describes:
            share = "constant scores" if math.isnan(self.explained) else f"{max(self.explained, 0):.0%} of the variance"
            return f"No turning point can be named: the form fits badly ({share}; it takes {GOOD_FIT:.0%})."
        if self.beta <= 0:
            return f"No turning point: the judge's curve doesn't bend down (beta {self.beta:.3g})."
        if not self.turns:
            return (
                f"No turning point up to KL {self.largest_kl:.3g}, the largest measured; the form would turn at KL "
                f"{self.turning_point:.3g}."
            )
        if self.turning_point <= self.smallest_kl:
            return "The judge falls from the start: the turning point is below the smallest KL measured."
        low, high = self.turning_interval
        ends = f"{low:.3g} to {high:.3g}" if math.isfinite(high) else f"from {low:.3g}, without an upper end"
        doubt = "" if self.is_sure else ": beyond the measured range, so it isn't sure that it turns"
        return f"The judge turns at KL {self.turning_point:.3g} nats (95% interval {ends}{doubt})."


def fit_gao(
    kl: ArrayLike,
    gold: ArrayLike,
    kind: Kind = "bon",
    *,
    start: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> GaoFit:
    """Fit one of Gao's forms by least squares; it is linear in alpha, beta and the start, so in closed form.

    Args:
        kl: `[K]` KL from the start in nats, or `[P, K]` by prompt. A mean below 0, which an estimate near the start may
            have, counts as 0.
        gold: `[K]` the judge's scores, or `[P, K]` by prompt.
        kind: "bon" for best-of-n, "rl" for reinforcement learning.
        start: Score at KL 0. Default: fitted, too.
        resamples: Bootstrap resamples of the turning point: of prompts, or of the residuals where `gold` has none.
        seed: Seed of the bootstrap.

    Raises:
        UserError: There are too few points, or they aren't finite numbers of the same shape.
    """
    if kind not in ("bon", "rl"):
        raise UserError(f"kind is {kind!r}; use 'bon' (best-of-n) or 'rl' (reinforcement learning).")
    kls, golds = _by_prompt(kl, gold)
    means = np.maximum(kls.mean(0), 0.0)
    needed = 3 if start is not None else 4
    if len(np.unique(means)) < needed:
        raise UserError(
            f"Gao's form needs {needed} points of different KL, got {len(np.unique(means))}; evaluate more often, or "
            "at more sizes n."
        )
    weights = _solve(means[None], golds.mean(0)[None], kind, start)[0]
    alpha, beta, offset = (float(value) for value in weights)
    form = _form(means, alpha, beta, offset, kind)
    residuals = golds.mean(0) - form
    spread = ((golds.mean(0) - golds.mean()) ** 2).sum()
    if len(golds) > 1:
        sums = Resampling(len(golds), resamples=resamples, seed=seed).sums(
            np.concatenate([kls, golds], axis=1), np.arange(len(golds))
        )
        drawn_kl, drawn_gold = np.split(sums / len(golds), 2, axis=1)
    else:
        rng, count = np.random.default_rng(seed), len(means)
        freedom = max(count - (needed - 1), 1)
        drawn = rng.choice(residuals * math.sqrt(count / freedom), (resamples, count))
        drawn_kl, drawn_gold = np.broadcast_to(means, drawn.shape), form + drawn
    resampled = _solve(np.maximum(drawn_kl, 0.0), drawn_gold, kind, start)
    turning = _turning_points(resampled[:, 0], resampled[:, 1], kind)
    low, high = np.quantile(turning, [0.025, 0.975], method="inverted_cdf")  # which takes infinity as a value
    return GaoFit(
        kind,
        alpha,
        beta,
        offset,
        float(1 - (residuals**2).sum() / spread) if spread > 1e-24 else float("nan"),
        float(_turning_points(weights[:1], weights[1:2], kind)[0]),
        [float(low), float(high)],
        float(means[means > 0].min()),
        float(means.max()),
    )


def _by_prompt(kl: ArrayLike, gold: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as `[P, K]`, checked; without prompts P is 1."""
    kls, golds = np.atleast_2d(np.asarray(kl, dtype=float)), np.atleast_2d(np.asarray(gold, dtype=float))
    if golds.ndim != 2 or kls.ndim != 2 or kls.shape[1] != golds.shape[1] or kls.shape[0] not in (1, golds.shape[0]):
        raise UserError(
            f"kl has shape {np.shape(kl)} and gold {np.shape(gold)}; give one number for each point, or one for each "
            "prompt and point."
        )
    if not (np.isfinite(kls).all() and np.isfinite(golds).all()):
        raise UserError("kl or gold has NaN or an infinite number; leave such points out.")
    return np.broadcast_to(kls, golds.shape), golds


def _columns(kl: NDArray[np.float64], kind: Kind) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What alpha and beta are multiplied by."""
    d = np.sqrt(np.maximum(kl, 0.0))
    # d log d -> 0 for d -> 0
    return d, -d * d if kind == "bon" else -d * np.log(np.where(d > 0, d, 1.0))


def _form(kl: NDArray[np.float64], alpha: float, beta: float, start: float, kind: Kind) -> NDArray[np.float64]:
    rise, bend = _columns(kl, kind)
    return start + alpha * rise + beta * bend


def _solve(kl: NDArray[np.float64], gold: NDArray[np.float64], kind: Kind, start: float | None) -> NDArray[np.float64]:
    """Least squares of many courses `[S, K]` at once: `[S, 3]` of alpha, beta and start."""
    columns = [*_columns(kl, kind), *([np.ones_like(kl)] if start is None else [])]
    target = gold if start is None else gold - start
    weights = np.einsum("spk,sk->sp", np.linalg.pinv(np.stack(columns, axis=2)), target)
    return weights if start is None else np.concatenate([weights, np.full((len(weights), 1), start)], axis=1)


def _turning_points(alpha: NDArray[np.float64], beta: NDArray[np.float64], kind: Kind) -> NDArray[np.float64]:
    """KL of the maximum; infinite where the form doesn't bend down."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ratio = alpha / beta
        d = np.maximum(ratio / 2, 0.0) if kind == "bon" else np.exp(ratio - 1)
        return np.where(beta > 0, d * d, np.inf)
