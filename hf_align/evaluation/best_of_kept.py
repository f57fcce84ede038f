"""What is kept of a prompt's scored samples: the best, the best and the worst, or all; and the figures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from hf_align.evaluation.best_of_samples import Sampling
from hf_align.rollouts.sampler import Sample

Keep = Literal["best", "pairs", "all"]


def _best(samples: Sequence[Sample], scores: Sequence[float]) -> dict[str, Any]:
    best = max(range(len(scores)), key=lambda n: scores[n])
    return {
        "completion": samples[best].text,
        "score": scores[best],
        "scores": list(scores),
        "finished": samples[best].finished,
    }


def _pair(samples: Sequence[Sample], scores: Sequence[float]) -> dict[str, Any] | None:
    """The best and the worst, None if no score is lower than the best of another text."""
    best = max(range(len(scores)), key=lambda n: scores[n])
    lower = [n for n in range(len(scores)) if scores[n] < scores[best] and samples[n].text != samples[best].text]
    if not lower:
        return None
    worst = min(lower, key=lambda n: scores[n])
    return {
        "chosen": samples[best].text,
        "rejected": samples[worst].text,
        "margin": scores[best] - scores[worst],
        "score_chosen": scores[best],
        "score_rejected": scores[worst],
        "finished": [samples[best].finished, samples[worst].finished],
    }


def _all(samples: Sequence[Sample], scores: Sequence[float]) -> dict[str, Any] | None:
    """Every text once, since rankings hold no two alike; None if fewer than two are left."""
    first = {sample.text: number for number, sample in reversed(list(enumerate(samples)))}
    kept = sorted(first.values())
    if len(kept) < 2:
        return None
    return {
        "responses": [samples[n].text for n in kept],
        "scores": [scores[n] for n in kept],
        "finished": [samples[n].finished for n in kept],
    }


KEEPERS = {"best": _best, "pairs": _pair, "all": _all}


def figures_of(
    samples: Sequence[Sequence[Sample]],
    usable: Sequence[Sequence[Sample]],
    scores: Mapping[int, Sequence[float]],
    new: Mapping[int, Mapping[str, Any]],
    keep: Keep,
    sampling: Sampling,
) -> dict[str, Any]:
    """Counts and means of a job.

    Args:
        samples: All samples, by prompt.
        usable: Those that were scored.
        scores: Theirs, by the prompt's number.
        new: The rows that are kept, likewise.
        keep: What is kept.
        sampling: How was sampled.
    """
    flat = [sample for each in samples for sample in each]
    values = [score for each in scores.values() for score in each]
    kept_scores = [max(scores[number]) for number in new]
    return {
        "keep": keep,
        **asdict(sampling),
        "prompts": len(samples),
        "rows": len(new),
        "samples": len(flat),
        "empty": sum(not sample.text.strip() for sample in flat),
        "cut": sum(not sample.finished for sample in flat),
        "without_usable_sample": sum(not each for each in usable),
        "alike": len(scores) - len(new),
        "undecided": sum(len(set(each)) == 1 and len(each) > 1 for each in scores.values()),
        "mean": sum(values) / len(values),
        "mean_best": sum(kept_scores) / len(kept_scores),
        "kept_cut": sum(not np.all(row["finished"]) for row in new.values()),
    }
