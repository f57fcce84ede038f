"""Several objectives: what one gains when another is given up.

A point is on the Pareto front if no other is at least as good in every objective and better in one. The hypervolume is
what a front dominates above a reference point (Zitzler and Thiele, 1998): one number to compare fronts by.

Notation: P prompts, C points (weight vectors or policies), M objectives.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_align.errors import UserError
from hf_align.evaluation.best_of_n import FEWEST_PROMPTS, expected_best_of_n
from hf_align.files import finite, whole_file, write_json, write_text
from hf_align.report.fronts import front_png, front_text, render_front
from hf_align.report.shown import SUFFIXES, check_suffix
from hf_align.statistics import Resampling

FILES = (*SUFFIXES, ".png")
"""Formats that a front is saved in."""

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Front:
    """Points with their scores by every objective.

    Attributes:
        objectives: M names; higher is better in each.
        labels: C names of the points.
        weights: `[C][M]` the weights that made them, None for policies.
        scores: `[P, C, M]` by prompt.
        reference: `[P, M]` scores above which the hypervolume counts; None: the worst mean of each objective.
        reference_name: What the reference is.

    Example:
        >>> from hf_align.evaluation import sweep_weights
        >>> samples = {"helpful": [[0.0, 1.0, 0.75]] * 12, "short": [[1.0, 0.0, 0.75]] * 12}
        >>> front = sweep_weights(samples, steps=2)
        >>> [(point["label"], point["values"]) for point in front.figures()["points"]]
        [('0 / 1', [0.0, 1.0]), ('0.5 / 0.5', [0.75, 0.75]), ('1 / 0', [1.0, 0.0])]
    """

    objectives: list[str]
    labels: list[str]
    weights: list[list[float]] | None
    scores: Table
    reference: Table | None
    reference_name: str

    def figures(self, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Means with intervals over prompts, the front and its hypervolume.

        Args:
            resamples: Bootstrap resamples; each draws the same prompts for all points.
            seed: Seed of the bootstrap.

        Returns:
            "objectives", "prompts", "reference" (means) with "reference_name", "hypervolume" with "_interval";
            "points": for each "label", "weights", "values" and "intervals" (one an objective), "on_front" and
            "front_share", the share of resamples in which it is on the front. Intervals are NaN for fewer than 10
            prompts.
        """
        prompts, count, width = self.scores.shape
        means, floor = self.scores.mean(0), self._floor(self.scores.mean(0), self.reference)
        on_front = ~dominated(means)
        resampling = Resampling(prompts, resamples=resamples, seed=seed)
        drawn = resampling.sums(self.scores.reshape(prompts, -1), np.arange(prompts)) / prompts
        drawn = drawn.reshape(resamples, count, width)
        floors = None
        if self.reference is not None:
            floors = resampling.sums(self.reference, np.arange(prompts)) / prompts
        volumes = [
            hypervolume(each, self._floor(each, None) if floors is None else floors[number])
            for number, each in enumerate(drawn)
        ]
        shares = np.mean([~dominated(each) for each in drawn], axis=0)
        enough = prompts >= FEWEST_PROMPTS

        def interval(values: Table) -> list[float]:
            return resampling.interval(values) if enough else [float("nan")] * 2

        return {
            "objectives": self.objectives,
            "prompts": prompts,
            "reference": floor.tolist(),
            "reference_name": self.reference_name,
            "hypervolume": hypervolume(means, floor),
            "hypervolume_interval": interval(np.asarray(volumes)),
            "points": [
                {
                    "label": label,
                    "weights": None if self.weights is None else self.weights[number],
                    "values": means[number].tolist(),
                    "intervals": [interval(drawn[:, number, objective]) for objective in range(width)],
                    "on_front": bool(on_front[number]),
                    "front_share": float(shares[number]),
                }
                for number, label in enumerate(self.labels)
            ],
        }

    @staticmethod
    def _floor(means: Table, reference: Table | None) -> Table:
        """The reference point `[M]`."""
        return means.min(0) if reference is None else reference.mean(0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained page (.html), its charts (.png), or the figures with every prompt's scores (.json).

        Raises:
            UserError: Another suffix, or a .png without matplotlib.
        """
        check_suffix(path, suffixes=FILES)
        figures = finite(self.figures())
        if Path(path).suffix.lower() == ".png":
            if (picture := front_png(figures)) is None:
                raise UserError(
                    f"{path} is drawn by matplotlib, which is not installed; pip install 'hf-align[report]'."
                )
            with whole_file(path) as unfinished:
                unfinished.write_bytes(picture)
            return
        if Path(path).suffix.lower() == ".json":
            write_json(path, {"figures": figures, "scores": self.scores.tolist()})
        else:
            write_text(path, render_front(figures))

    def __str__(self) -> str:
        """A table for a terminal."""
        return front_text(self.figures())


def dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Whether another point is at least as good in every objective and better in one: `[C, M]` to `[C]`."""
    table = np.asarray(points, dtype=float)
    no_worse = (table[:, None] >= table[None]).all(2)  # [C, C]: the first is no worse than the second
    better = (table[:, None] > table[None]).any(2)
    return np.asarray((no_worse & better).any(0))


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume between a reference and all points that are better than it in every objective.

    Args:
        points: `[C, M]`.
        reference: `[M]`.
    """
    gains = np.asarray(points, dtype=float) - np.asarray(reference, dtype=float)
    return _volume(gains[(gains > 0).all(1)])


def _volume(gains: Table) -> float:
    """Slices along the last objective, each with the volume of the points above it in the others."""
    if not len(gains):
        return 0.0
    if gains.shape[1] == 1:
        return float(gains.max())
    ordered = gains[np.argsort(-gains[:, -1], kind="stable")]
    heights = ordered[:, -1] - np.append(ordered[1:, -1], 0.0)
    if gains.shape[1] == 2:
        return float(heights @ np.maximum.accumulate(ordered[:, 0]))
    return sum(
        float(height) * _volume(ordered[: number + 1, :-1]) for number, height in enumerate(heights) if height > 0
    )


def weight_vectors(objectives: int, steps: int) -> list[list[float]]:
    """All weights that are multiples of 1/steps and sum to 1, from the last objective alone to the first alone.

    Args:
        objectives: Number of objectives, at least 2.
        steps: Parts that 1 is divided into.

    Raises:
        UserError: There are fewer objectives or steps.
    """
    if objectives < 2:
        raise UserError(f"a front needs at least 2 objectives, got {objectives}.")
    if steps < 1:
        raise UserError(f"steps is {steps}; give a number from 1.")
    bars = combinations(range(steps + objectives - 1), objectives - 1)
    counts = [np.diff([-1, *places, steps + objectives - 1]) - 1 for places in bars]
    return [(each / steps).tolist() for each in counts]


def sweep_weights(
    samples: Mapping[str, Sequence[ArrayLike]],
    weights: Sequence[Sequence[float]] | None = None,
    *,
    steps: int = 10,
    n: int | None = None,
) -> Front:
    """Best-of-n under many weights: the same samples of a policy, ranked by each weighted sum of their scores.

    Nothing is sampled or trained again. An objective is divided by its standard deviation over all samples before it is
    weighted, so that equal weights mean equal say. With n below the number of samples the expectation over all subsets
    is taken, without bias.

    Args:
        samples: For each objective, each prompt's scores of its samples `[N]`.
        weights: Weight vectors, in the objectives' order. Default: `weight_vectors(M, steps)`.
        steps: Fineness of the default weights.
        n: Samples to pick the best of. Default: the fewest of a prompt.

    Returns:
        The front; its reference is the policy itself, n = 1.

    Raises:
        UserError: Numbers of samples or weights don't match, or one isn't finite.
    """
    names, by_prompt = list(samples), _samples(samples)
    chosen = weight_vectors(len(names), steps) if weights is None else [list(map(float, each)) for each in weights]
    for number, each in enumerate(chosen):
        if len(each) != len(names) or not np.isfinite(each).all():
            raise UserError(f"weights[{number}] is {each}; give a finite number for each of {', '.join(names)}.")
    fewest = min(len(each) for each in by_prompt)
    size = fewest if n is None else n
    if not 1 <= size <= fewest:
        raise UserError(f"n is {n}; give a number from 1 to {fewest}, the fewest samples of a prompt.")
    spread = np.concatenate(by_prompt).std(0)
    spread[spread == 0] = 1.0
    scores = np.asarray(
        [
            [[expected_best_of_n(each @ (vector / spread), each[:, m], [size])[0] for m in range(len(names))]
             for vector in np.asarray(chosen)]
            for each in by_prompt
        ]
    )  # fmt: skip
    labels = [" / ".join(f"{weight:.3g}" for weight in each) for each in chosen]
    reference = np.asarray([each.mean(0) for each in by_prompt])
    return Front(names, labels, chosen, scores, reference, "the policy itself, without a choice")


def _samples(samples: Mapping[str, Sequence[ArrayLike]]) -> list[Table]:
    """Each prompt's samples as `[N, M]`, checked."""
    if len(samples) < 2:
        raise UserError(f"a front needs at least 2 objectives, got {len(samples)}.")
    columns = {name: [np.asarray(scores, dtype=float) for scores in each] for name, each in samples.items()}
    first = next(iter(columns))
    for name, each in columns.items():
        if len(each) != len(columns[first]) or not each:
            raise UserError(f"{name} has scores of {len(each)} prompts and {first} of {len(columns[first])}.")
        for prompt, (scores, others) in enumerate(zip(each, columns[first], strict=True)):
            if scores.shape != others.shape or scores.ndim != 1 or not len(scores):
                raise UserError(
                    f"prompt {prompt} has {scores.size} samples scored by {name} and {others.size} by {first}."
                )
            if not np.isfinite(scores).all():
                raise UserError(f"prompt {prompt} has a score by {name} that is NaN or infinite; leave the sample out.")
    return [np.stack(each, axis=1) for each in zip(*columns.values(), strict=True)]


def front_of_policies(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    reference: str | None = None,
    weights: Mapping[str, Sequence[float]] | None = None,
) -> Front:
    """The front of policies whose responses to the same prompts were scored by several judges.

    Args:
        scores: By objective, then by policy, `[P]` scores; `PolicyReport.scores` is one.
        reference: The policy above which the hypervolume counts. Default: the worst mean of each objective, which makes
            hypervolumes of different sets of policies incomparable.
        weights: The weights that each policy was trained with, if any.

    Raises:
        UserError: There are fewer than two objectives or policies, or scores are missing.
    """
    objectives = list(scores)
    if len(objectives) < 2:
        raise UserError(f"a front needs at least 2 objectives, got {len(objectives)}; give several judges.")
    labels = list(scores[objectives[0]])
    if len(labels) < 2:
        raise UserError(f"a front needs at least 2 policies, got {len(labels)}.")
    if reference is not None and reference not in labels:
        raise UserError(f"reference is {reference}, which isn't one of {', '.join(labels)}.")
    lengths = {len(each) for of_policy in scores.values() for each in of_policy.values()}
    if any(list(of_policy) != labels for of_policy in scores.values()) or len(lengths) != 1:
        raise UserError("the objectives have scores of different policies or prompts; score all by every judge.")
    table = np.asarray([[scores[name][label] for name in objectives] for label in labels], dtype=float)
    if not np.isfinite(table).all():
        raise UserError("a score is NaN or infinite; a front needs finite ones.")
    table = table.transpose(2, 0, 1)  # [P, C, M]
    return Front(
        objectives,
        labels,
        None if weights is None else [list(map(float, weights[label])) for label in labels],
        table,
        None if reference is None else table[:, labels.index(reference)],
        "the worst mean of each objective" if reference is None else reference,
    )
