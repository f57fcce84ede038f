"""Whether an ensemble is unsure where it errs: uncertainty of a pair against errors of its order.

A pair's uncertainty is that of the difference of its two scores, not of either score: members that disagree on how good
both responses are, by the same amount, agree on their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.evaluation.scorers import CHUNK, score_all, scorer_of
from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.uncertainty import deviation, dropout_scores, preference_entropy, variation_ratio
from hf_align.progress import Progress
from hf_align.statistics import Resampling, cases_of, interval_of_share

BASELINE = "difference"
"""Minus the absolute difference of the scores, which any single reward model has: what uncertainty must beat."""
TOP = 0.1
"""Share of the pairs that are compared with the rest: the least sure."""
_DRAWN = 50  # resamples handled at once


def ensemble_uncertainty(
    data: Comparisons,
    scores: NDArray[np.float64],
    ensemble: RewardEnsemble,
    resampling: Resampling,
    *,
    passes: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Score all texts with each member, and in passes with dropout, for `measure_uncertainty`.

    Args:
        data: The pairs.
        scores: `[R]` the ensemble's.
        ensemble: The ensemble.
        resampling: Draws of `data`'s units.
        passes: Passes with dropout; 0 for none.
        seed: Draws the dropout.
        progress: Receiver of progress.
    """
    parts = []
    with progress.task("scoring with each member", len(data.texts)) as advance:
        for start in range(0, len(data.texts), CHUNK):
            texts = data.texts[start : start + CHUNK]
            prompts, responses, options = zip(*((text.prompt, text.text, text.options) for text in texts), strict=True)
            parts.append(ensemble.member_scores(prompts, responses, rows=options))
            advance(min(start + CHUNK, len(data.texts)), "")
    members = torch.cat(parts, 1).double().numpy()[:, data.text_of]
    dropped = None
    if passes:

        def score() -> list[float]:
            return score_all(scorer_of(ensemble), data.texts, progress, "scoring with dropout").tolist()

        dropped = dropout_scores(ensemble, score, passes=passes, seed=seed).double().numpy()[:, data.text_of]
    log_odds = [getattr(member, "log_odds", 1.0) for member in ensemble.members]
    return measure_uncertainty(data, scores, members, log_odds, resampling, passes=dropped)


def measure_uncertainty(
    data: Comparisons,
    scores: NDArray[np.float64],
    members: NDArray[np.float64],
    log_odds: Sequence[float],
    resampling: Resampling,
    *,
    passes: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Compare measures of uncertainty as detectors of errors, on decided pairs with different scores.

    Args:
        data: The pairs.
        scores: `[R]` the ensemble's.
        members: `[M, R]` its members'.
        log_odds: `[M]` what makes a difference of a member's scores log odds.
        resampling: Draws of `data`'s units: all pairs of a prompt, or of a text, come and go together.
        passes: `[T, R]` scores of networks drawn by dropout, if there are any.

    Returns:
        "members", "passes", "pairs", "errors" (pairs whose order is wrong), "error" (their share), "equal_scores" (left
        out), and "measures": the baseline "difference"; "std" over members of the difference; "entropy" of P(first is
        better); "variance_ratio", the members' variation ratio on which is better; and "mc_dropout", the std over
        passes of the difference. Each has "name", "auroc" (the chance that an error is less sure than a pair in the
        right order; equal values count half), "gain" (the AUROC minus the baseline's), "top_error" and "rest_error"
        (share of errors in the least sure tenth of the pairs and in the rest) and "ratio" of the two, with
        "..._interval".
    """
    difference = scores[data.first] - scores[data.second]
    decided = data.better != 0
    kept = decided & (difference != 0)
    unit, other = data.pair_units
    unit, other = unit[kept], None if other is None else other[kept]
    wrong = (np.sign(difference[kept]) != data.better[kept]).astype(float)
    of_members = torch.as_tensor((members[:, data.first] - members[:, data.second])[:, kept])
    values = {
        BASELINE: -np.abs(difference[kept]),
        "std": deviation(of_members).numpy(),
        "entropy": preference_entropy(of_members, log_odds).numpy(),
        "variance_ratio": variation_ratio(of_members).numpy(),
    }
    if passes is not None:
        values["mc_dropout"] = (passes[:, data.first] - passes[:, data.second])[:, kept].std(0)
    table = np.stack(list(values.values()))
    found = detection(table, wrong, np.ones((len(wrong), 1)))[:, 0]
    drawn = _resampled(table, wrong, unit, other, resampling)  # [measures, resamples]
    measures = []
    for number, name in enumerate(values):
        gain = None if name == BASELINE else float(found[number] - found[0])
        measures.append(
            {
                "name": name,
                "auroc": float(found[number]),
                "auroc_interval": resampling.interval(drawn[number]),
                "gain": gain,
                "gain_interval": None if gain is None else resampling.interval(drawn[number] - drawn[0]),
                **_top_and_rest(table[number], wrong, unit, other, resampling),
            }
        )
    return {
        "members": len(members),
        "passes": 0 if passes is None else len(passes),
        "pairs": int(kept.sum()),
        "errors": int(wrong.sum()),
        "error": float(wrong.mean()) if len(wrong) else float("nan"),
        "equal_scores": int((decided & ~kept).sum()),
        "measures": measures,
    }


def detection(
    values: NDArray[np.float64], wrong: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUROC of values as detectors of errors: P(an error's value is above that of a right one), equal ones half.

    Args:
        values: `[K, P]` of K measures.
        wrong: `[P]` 1 for an error, 0 for a right one.
        weights: `[P, W]` weights of the pairs, in W variants.

    Returns:
        `[K, W]`; NaN where all pairs are right, or wrong.

    Example:
        >>> import numpy as np
        >>> from hf_align.evaluation.uncertainty import detection
        >>> detection(np.array([[0.9, 0.2, 0.5, 0.2]]), np.array([1.0, 0.0, 0.0, 1.0]), np.ones((4, 1))).tolist()
        [[0.625]]
    """
    errors, right = wrong[:, None] * weights, (1 - wrong)[:, None] * weights
    pairs = errors.sum(0) * right.sum(0)
    results = np.full((len(values), weights.shape[1]), np.nan)
    for number, of_measure in enumerate(values):
        order = np.argsort(of_measure, kind="stable")
        ordered = of_measure[order]
        start, end = (np.searchsorted(ordered, ordered, side) for side in ("left", "right"))
        below = np.concatenate([np.zeros_like(right[:1]), np.cumsum(right[order], axis=0)])  # [P + 1, W]
        wins = (errors[order] * (below[start] + below[end]) / 2).sum(0)
        np.divide(wins, pairs, out=results[number], where=pairs > 0)
    return results


def _resampled(
    values: NDArray[np.float64],
    wrong: NDArray[np.float64],
    unit: NDArray[np.intp],
    other: NDArray[np.intp] | None,
    resampling: Resampling,
) -> NDArray[np.float64]:
    """AUROCs `[measures, resamples]` in every resample."""
    parts = []
    for start in range(0, resampling.resamples, _DRAWN):
        counts = resampling.counts[:, start : start + _DRAWN].astype(float)
        weights = counts[unit] if other is None else counts[unit] * counts[other]
        parts.append(detection(values, wrong, weights))
    return np.concatenate(parts, axis=1)


def _top_and_rest(
    values: NDArray[np.float64],
    wrong: NDArray[np.float64],
    unit: NDArray[np.intp],
    other: NDArray[np.intp] | None,
    resampling: Resampling,
) -> dict[str, Any]:
    """Share of errors among the least sure tenth and among the rest, and their ratio."""
    top = _top_share(values)
    columns = np.stack([top * wrong, top, (1 - top) * wrong, 1 - top], axis=1)
    sums = resampling.sums(columns, unit, other)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = [(part[..., 0] / part[..., 1], part[..., 2] / part[..., 3]) for part in (columns.sum(0), sums)]
        ratios = [top_rate / rest_rate for top_rate, rest_rate in rates]
    (top_error, rest_error), (tops, rests) = rates
    result: dict[str, Any] = {}
    for name, value, resampled in (
        ("top_error", top_error, tops),
        ("rest_error", rest_error, rests),
        ("ratio", *ratios),
    ):
        result[name] = float(value) if np.isfinite(value) else float("nan")
        result[f"{name}_interval"] = resampling.interval(resampled)
    for name, part in (("top_error", top > 0), ("rest_error", top < 1)):
        cases = cases_of(unit[part], None if other is None else other[part])
        result[f"{name}_interval"] = interval_of_share(result[name], result[f"{name}_interval"], cases)
    return result


def _top_share(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[P]` how much of each pair belongs to the highest tenth: equal values at its edge belong to it in part."""
    size = TOP * len(values)
    ordered = np.sort(values)
    above = len(values) - np.searchsorted(ordered, values, "right")
    alike = np.searchsorted(ordered, values, "right") - np.searchsorted(ordered, values, "left")
    return np.clip((size - above) / np.maximum(alike, 1), 0.0, 1.0)
