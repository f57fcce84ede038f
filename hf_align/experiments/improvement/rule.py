"""When rounds stop: two one-sided tests over held-out prompts, with a stated error rate."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from hf_align.statistics import Resampling

TIE = 0.5
TAIL = 20
"""Least resamples beyond the end of a one-sided interval."""
POWER = 0.8


@dataclass(frozen=True)
class Verdict:
    """What the rule says about a round's policy against the best one before it.

    Attributes:
        held_out: The held-out judge's win rate; 1/2 is no change.
        training: The training judge's win rate on the same responses; None where only people's votes are followed.
        falls: The held-out win rate is significantly below 1/2.
        outruns: The training judge's win rate is significantly above 1/2, and the held-out judge's gain significantly
            less than the demanded share of the training judge's.
        better: The held-out win rate is above 1/2 and the run isn't stopped: this policy is the best one now.
    """

    held_out: float
    training: float | None
    falls: bool
    outruns: bool
    better: bool

    @property
    def stop(self) -> bool:
        """Whether rounds end."""
        return self.falls or self.outruns

    def figures(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "stop": self.stop}


def resamples_for(error: float, least: int) -> int:
    """Resamples that leave at least `TAIL` beyond the end of an interval with this one-sided error rate."""
    return max(least, math.ceil(TAIL / error))


def apply_rule(
    held_out: ArrayLike,
    training: ArrayLike | None,
    resampling: Resampling,
    unit: NDArray[np.intp],
    *,
    error: float,
    gain_share: float,
) -> Verdict:
    """Test whether a policy is worse than the best one before it, or better in the training judge's eyes alone.

    With h and t the outcomes of the same comparison by the held-out and the training judge (1: the new policy wins,
    1/2: a tie, 0: it loses), means over prompts, and g the demanded share, rounds stop where

        falls      h is below 1/2
        outruns    t is above 1/2, and (h - 1/2) - g (t - 1/2) below 0

    each significantly: the end of the one-sided percentile interval of a bootstrap over prompts, the two judges'
    outcomes drawn together, lies beyond. So where the held-out judge's gain is in truth 0 or more, and g times the
    training judge's or more, each test errs with probability `error` at most (up to the bootstrap's approximation), and
    a run with R rounds with 2 R `error` at most. That the held-out judge's gain alone isn't significant never stops a
    run: with few prompts that would stop most.

    Args:
        held_out: `[N]` h of each prompt.
        training: `[N]` t; None leaves the second test out.
        resampling: Draws of prompts.
        unit: `[N]` the prompt of each row.
        error: Error rate of each test.
        gain_share: g.

    Example:
        >>> import numpy as np
        >>> from hf_align.experiments.improvement.rule import apply_rule
        >>> from hf_align.statistics import Resampling
        >>> longer, better = np.ones(200), np.tile([0.0, 1.0], 100)
        >>> judged = apply_rule(better, longer, Resampling(200), np.arange(200), error=0.01, gain_share=1 / 3)
        >>> judged.outruns, judged.falls
        (True, False)
    """
    h = np.asarray(held_out, dtype=float) - TIE
    t = np.zeros_like(h) if training is None else np.asarray(training, dtype=float) - TIE
    columns = np.stack([h, t, h - gain_share * t, np.ones_like(h)], axis=1)
    sums = resampling.sums(columns, unit)
    gains, trained, short = (sums[:, :3] / sums[:, 3:]).T
    # A bootstrap that draws only losses is sure after a few of them, so a test needs as many changed prompts as make
    # nothing but losses rarer than its error rate. Where the share is met, 1 - g is the largest share of losses.
    even, share = (least_changed(error, losses) for losses in (0.5, max(0.5, 1 - gain_share)))
    changed = [int((np.bincount(unit, np.abs(column)) > 0).sum()) for column in columns.T[:3]]
    falls = changed[0] >= even and float(np.quantile(gains, 1 - error)) < 0
    outruns = (
        training is not None
        and changed[1] >= even
        and changed[2] >= share
        and float(np.quantile(trained, error)) > 0
        and float(np.quantile(short, 1 - error)) < 0
    )
    rate = float(h.mean() + TIE)
    return Verdict(
        rate,
        None if training is None else float(t.mean() + TIE),
        falls,
        outruns,
        bool(h.mean() > 0 and not falls and not outruns),
    )


def least_changed(error: float, losses: float) -> int:
    """Least prompts for a test: of so many, each lost with this probability, all are lost with `error` at most.

    Example:
        >>> from hf_align.experiments.improvement.rule import least_changed
        >>> least_changed(0.05 / 6, 0.5), least_changed(0.05 / 6, 2 / 3)
        (7, 12)
    """
    return math.ceil(math.log(error) / math.log(losses))


def detectable_fall(prompts: int, error: float) -> float:
    """The fall of the win rate below 1/2 that the first test sees with probability .8, without ties.

    By the normal approximation, with the largest standard deviation that a win rate can have: (z_error + z_.2) / (2
    sqrt(n)). Ties make it smaller.
    """
    return float((norm.isf(error) + norm.ppf(POWER)) * 0.5 / math.sqrt(prompts))
