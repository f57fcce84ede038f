"""Over-optimisation: the reward that is maximised (proxy) and an independent judge, along the KL from the start.

Along KL the proxy rises, and the judge rises and then falls, in one of Gao's forms (`gao`).

Notation: P prompts, K points of a course (sizes n, or evaluations of a run).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from hf_align.errors import UserError
from hf_align.evaluation.best_of_n import FEWEST_PROMPTS, best_of_n_kl, expected_best_of_n
from hf_align.evaluation.gao import Kind, fit_gao
from hf_align.statistics import Interval, Resampling

DRAWN = 60
"""Points of a fitted curve."""


@dataclass(frozen=True)
class Fall:
    """How far a score is below its maximum so far.

    Attributes:
        best: Number of the point with the maximum.
        fall: Mean over prompts of maximum minus last.
        interval: Its interval.
    """

    best: int
    fall: float
    interval: Interval

    @property
    def is_sure(self) -> bool:
        """Whether the last score is below the maximum by more than chance."""
        return self.interval[0] > 0


def fall_from_best(scores: ArrayLike) -> Fall:
    """Compare the last point's mean with the highest so far, prompt by prompt.

    The interval is Student's for paired differences, at 95% for all earlier points together (Bonferroni): the highest
    of many noisy means is too high, so the last of a long flat course would often seem to have fallen.

    Args:
        scores: `[P, K]`.
    """
    table = np.asarray(scores, dtype=float)
    prompts, points = table.shape
    best = int(table.mean(0).argmax())
    differences = table[:, best] - table[:, -1]
    mean = float(differences.mean())
    if best == points - 1 or prompts < 2:
        return Fall(best, mean, [math.nan, math.nan])
    width = float(student.ppf(1 - 0.025 / (points - 1), prompts - 1) * differences.std(ddof=1) / math.sqrt(prompts))
    return Fall(best, mean, [mean - width, mean + width])


@dataclass(frozen=True)
class Course:
    """Proxy and judge of the same prompts' responses at each point of a course.

    Attributes:
        kind: "bon" (points are sizes n) or "rl" (points are steps).
        at: `[K]` sizes or steps.
        kl: `[P, K]` KL from the start, in nats.
        proxy: `[P, K]` scores that are maximised.
        judge: `[P, K]` an independent judge's.
        proxy_sd: Standard deviation of the proxy's scores at the start.
        judge_sd: The judge's.

    Example:
        >>> from hf_align.evaluation import best_of_n_course
        >>> proxy = [[0.1, 0.9, 0.4, 0.2, 0.3, 0.8, 0.0, 0.5]] * 2
        >>> course = best_of_n_course(proxy, proxy)
        >>> course.at, round(course.figures()["curve"][-1]["judge"], 3)
        ([1, 2, 4, 8], 0.9)
    """

    kind: Kind
    at: list[int]
    kl: NDArray[np.float64]
    proxy: NDArray[np.float64]
    judge: NDArray[np.float64]
    proxy_sd: float
    judge_sd: float

    def figures(self, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
        """Means with intervals over prompts, the fitted form and its turning point.

        Args:
            resamples: Bootstrap resamples.
            seed: Seed of the bootstrap.

        Returns:
            "kind", "prompts", "proxy_sd", "judge_sd"; "curve": for each point "at", "kl", and "proxy" and "judge" with
            "_interval" (NaN for fewer than 10 prompts); "best": number of the point with the judge's maximum; "fit":
            the form's figures with "turns", and "fitted", its (KL, score) pairs, both None with too few points;
            "fall": how far the last is below it, with "fall_interval" (`fall_from_best`); "sentence".
        """
        prompts = len(self.judge)
        resampling = Resampling(prompts, resamples=resamples, seed=seed)
        each, ones = np.arange(prompts), np.ones(prompts)
        of_proxy, of_judge = (resampling.ratios(values, ones, each) for values in (self.proxy, self.judge))
        enough = prompts >= FEWEST_PROMPTS
        curve = [
            {
                "at": at,
                "kl": float(self.kl[:, place].mean()),
                "proxy": of_proxy[place][0],
                "proxy_interval": of_proxy[place][1] if enough else [math.nan, math.nan],
                "judge": of_judge[place][0],
                "judge_interval": of_judge[place][1] if enough else [math.nan, math.nan],
            }
            for place, at in enumerate(self.at)
        ]
        fall = fall_from_best(self.judge)
        figures: dict[str, Any] = {
            "kind": self.kind,
            "prompts": prompts,
            "proxy_sd": self.proxy_sd,
            "judge_sd": self.judge_sd,
            "curve": curve,
            "best": fall.best,
            "fall": fall.fall,
            "fall_interval": fall.interval,
            "fit": None,
            "fitted": None,
        }
        try:
            fit = fit_gao(self.kl, self.judge, self.kind, resamples=resamples, seed=seed)
        except UserError as error:
            return {**figures, "sentence": f"No turning point can be named yet: {error}{_measured(curve, fall)}"}
        along = np.linspace(0.0, fit.largest_kl, DRAWN)
        fitted = np.stack([along, fit.predict(along)], axis=1).tolist()
        return {
            **figures,
            "fit": {**asdict(fit), "turns": fit.turns},
            "fitted": fitted,
            "sentence": f"{fit}{_measured(curve, fall)}",
        }

    def to_json(self) -> dict[str, Any]:
        """Every prompt's numbers, from which `from_json` makes the same course."""
        return {
            "kind": self.kind,
            "proxy_sd": self.proxy_sd,
            "judge_sd": self.judge_sd,
            "points": [
                {"at": at, **{name: getattr(self, name)[:, place].tolist() for name in ("kl", "proxy", "judge")}}
                for place, at in enumerate(self.at)
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Course:
        """Make a course from the result of `to_json`."""
        points = content["points"]
        table = {name: np.asarray([point[name] for point in points]).T for name in ("kl", "proxy", "judge")}
        at = [int(point["at"]) for point in points]
        return cls(content["kind"], at, **table, proxy_sd=content["proxy_sd"], judge_sd=content["judge_sd"])


def _measured(curve: Sequence[Mapping[str, Any]], fall: Fall) -> str:
    """Where the judge's mean was highest, and that it surely fell since, if it did."""
    if not fall.is_sure:
        return ""
    best, (low, high) = curve[fall.best], fall.interval
    return (
        f" Its highest mean, {best['judge']:.3g}, is at KL {best['kl']:.3g}; the last is {fall.fall:.3g} lower (95% "
        f"interval {low:.3g} to {high:.3g})."
    )


def best_of_n_course(proxy: Sequence[ArrayLike], judge: Sequence[ArrayLike], ns: Sequence[int] | None = None) -> Course:
    """The course of best-of-n: what the responses that the proxy picks among n are worth, without bias.

    Args:
        proxy: For each prompt the proxy's scores of its samples, `[N]`.
        judge: The judge's scores of the same samples.
        ns: Sizes n, ascending. Default: 1, 2, 4, ..., and the smallest number of samples to a prompt.

    Raises:
        UserError: A prompt has other numbers of both scores, a score isn't finite, or fewer samples than a size.
    """
    by_proxy, by_judge = ([np.asarray(scores, dtype=float) for scores in each] for each in (proxy, judge))
    if not by_proxy or len(by_proxy) != len(by_judge):
        raise UserError(
            f"proxy has scores of {len(by_proxy)} prompts and judge of {len(by_judge)}; give both for each."
        )
    for prompt, (ours, theirs) in enumerate(zip(by_proxy, by_judge, strict=True)):
        if ours.ndim != 1 or ours.shape != theirs.shape or not len(ours):
            raise UserError(
                f"prompt {prompt} has {ours.size} scores of the proxy and {theirs.size} of the judge; give both for "
                "each sample."
            )
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            raise UserError(f"prompt {prompt} has a score that is NaN or infinite; leave the sample out.")
    fewest = min(map(len, by_proxy))
    sizes = list(ns) if ns is not None else sorted({2**power for power in range(fewest.bit_length())} | {fewest})
    if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] > fewest:
        raise UserError(f"ns is {sizes}; give ascending sizes from 1 to {fewest}, the fewest samples of a prompt.")
    picked = [
        np.stack([expected_best_of_n(ours, scores[place], sizes) for place, ours in enumerate(by_proxy)])
        for scores in (by_proxy, by_judge)
    ]
    kl = np.broadcast_to([best_of_n_kl(n) for n in sizes], picked[0].shape)
    spread = [float(np.concatenate(scores).std()) for scores in (by_proxy, by_judge)]
    return Course("bon", sizes, kl, picked[0], picked[1], *spread)


def is_over_optimized(proxy: ArrayLike, judge: ArrayLike, patience: int) -> bool:
    """Whether at each of the last `patience` points the judge had surely fallen from its maximum, and the proxy hadn't.

    Args:
        proxy: `[P, K]`.
        judge: `[P, K]`.
        patience: Number of points in a row that it takes.
    """
    proxies, judges = np.asarray(proxy, dtype=float), np.asarray(judge, dtype=float)
    points = judges.shape[1]
    return points > patience and all(
        fall_from_best(judges[:, :end]).is_sure and not fall_from_best(proxies[:, :end]).is_sure
        for end in range(points - patience + 1, points + 1)
    )
