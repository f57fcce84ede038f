"""Figures of runs on the same resampled texts, so that two settings are compared pair by pair.

Notation: B resamples, N texts of a domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.cache import CachedTexts
from benchmarks.study.figures import calibration_errors, ordered_right, temperature_of, vote_shares
from benchmarks.study.runs import Scores, places_of
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.statistics import pearson

DRAWS, FEWER = 1000, 100
"""Resamples of r and accuracy, and of what takes longer."""
Figures = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By name the domains' values `[3]` and those of every resample `[3, B]`."""


class HeldOut:
    """The test texts of each domain and resamples of them.

    Args:
        cached: The texts; their states aren't used.
    """

    def __init__(self, cached: CachedTexts):
        self.texts = {
            split: {domain: [cached.texts[n] for n in places_of(cached, split, domain)] for domain in DOMAINS}
            for split in ("validation", "test")
        }
        self.draws: dict[str, NDArray[np.intp]] = {}
        self.counts: dict[str, NDArray[np.float64]] = {}
        for number, domain in enumerate(DOMAINS):
            size = len(self.texts["test"][domain])
            self.draws[domain] = np.random.default_rng(number).integers(size, size=(DRAWS, size))
            self.counts[domain] = np.stack([np.bincount(draw, minlength=size) for draw in self.draws[domain]]).astype(
                float
            )

    def means(self, split: str, domain: str) -> NDArray[np.float64]:
        """`[N]` mean ratings."""
        return np.array([text["mean"] for text in self.texts[split][domain]])

    def lengths(self, split: str, domain: str) -> NDArray[np.float64]:
        """`[N]` tokens."""
        return np.array([float(len(text["ids"])) for text in self.texts[split][domain]])

    @cache  # noqa: B019  # one object a run
    def shares(self, split: str, domain: str) -> NDArray[np.float64]:
        """`[N, N]` P(i better than j)."""
        return vote_shares([text["ratings"] for text in self.texts[split][domain]])

    def figures(self, scores: Scores, names: Sequence[str] = ("r", "accuracy", "ece")) -> Figures:
        """r, accuracy on clear pairs, and ECE after a temperature fitted on validation."""
        values: dict[str, list[float]] = {name: [] for name in names}
        drawn: dict[str, list[NDArray]] = {name: [] for name in values}
        for domain in DOMAINS:
            own, means, counts = scores["test"][domain], self.means("test", domain), self.counts[domain]
            draws = self.draws[domain]
            values["r"].append(float(pearson(own, means)))
            drawn["r"].append(pearson(own[draws], means[draws]))
            if set(names) == {"r"}:
                continue
            right, clear = ordered_right(own, means)
            values["accuracy"].append(right.sum() / clear.sum())
            drawn["accuracy"].append(sums(right, counts) / sums(clear, counts))
            temperature = temperature_of(scores["validation"][domain], self.shares("validation", domain))
            errors = calibration_errors(own / temperature, self.shares("test", domain))
            size, fewer = len(own), counts[:FEWER]
            pairs = size**2 - (fewer**2).sum(1)
            values["ece"].append(float(np.abs(errors.sum((1, 2))).sum() / (size * (size - 1))))
            few = sum(np.abs(sums(error, fewer)) for error in errors) / pairs
            drawn["ece"].append(np.resize(np.asarray(few), DRAWS))
        return {name: (np.array(values[name]), np.stack(drawn[name])) for name in values}


def sums(matrix: NDArray, counts: NDArray) -> NDArray[np.float64]:
    """Sum of `[N, N]` over pairs, each text counting as often as it was drawn: `[B, N]` -> `[B]`."""
    return np.einsum("bi,bi->b", counts @ matrix, counts)


def mean_figures(every: list[Figures]) -> Figures:
    """Means over seeds."""
    return {
        name: (np.mean([each[name][0] for each in every], axis=0), np.mean([each[name][1] for each in every], axis=0))
        for name in every[0]
    }


def interval(values: NDArray) -> tuple[float, float]:
    """Middle 95%."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def cell(values: NDArray, signed: bool = False) -> str:
    """An interval as text, without the leading zero."""
    low, high = interval(values)
    return f"[{number(low, signed)}, {number(high, signed)}]"


def number(value: float, signed: bool = False) -> str:
    """A figure with three digits, without the leading zero."""
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def rows(lines: list[list[Any]]) -> str:
    """A markdown table; the first line is its head."""
    head, *rest = lines
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [head, ["---"] * len(head), *rest])
