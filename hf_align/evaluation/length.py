"""Length: whether a reward model pays for it more than people do; and style, where rows have several."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.evaluation.accuracy import points
from hf_align.statistics import Resampling

PARTS = 5
"""Parts of the pairs by difference of lengths, with about as many pairs in each."""


def measure_length(
    data: Comparisons, scores: NDArray[np.float64], lengths: NDArray[np.float64], resampling: Resampling
) -> dict[str, Any]:
    """Correlation of differences of scores and lengths within pairs, and accuracy by difference of lengths.

    Pairs are mirrored, so the correlation is sum(dr dl) / sqrt(sum(dr^2) sum(dl^2)); over all pairs of a prompt it is
    the correlation within the prompt. People's own takes their scores, or 2 P(first is better) - 1 without scores.

    Args:
        data: The pairs.
        scores: `[R]` the model's.
        lengths: `[R]` of the responses.
        resampling: Draws of `data`'s units.

    Returns:
        "reward", "people" and "excess" (reward - people), each with its "..._interval"; NaN without differences.
        "mean_length"; "parts": decided pairs by length of the better response minus that of the worse, "low", "high",
        "pairs", "accuracy" with "accuracy_interval". "longer_wins": share of decided pairs of unequal lengths in which
        the longer response is "people"'s choice, and the "reward"'s.
    """
    unit, other = data.pair_units
    longer = (lengths[data.first] - lengths[data.second]).astype(np.float64)
    by_model = scores[data.first] - scores[data.second]
    human = data.human[data.first] - data.human[data.second]
    by_people = human if data.human_kind and not np.isnan(human).any() else 2 * data.label - 1
    columns = np.stack([longer * by_model, longer * by_people, longer**2, by_model**2, by_people**2], axis=1)
    drawn = _correlations(resampling.sums(columns, unit, other))
    result: dict[str, Any] = {"mean_length": float(lengths.mean())}
    for name, value, values in zip(
        ("reward", "people", "excess"), _correlations(columns.sum(axis=0, keepdims=True)), drawn, strict=True
    ):
        result[name], result[f"{name}_interval"] = float(value[0]), resampling.interval(values)
    unequal = (longer != 0) & (data.better != 0)
    sign = np.sign(longer[unequal])
    result["longer_wins"] = {
        "pairs": int(unequal.sum()),
        "people": float(np.mean(data.better[unequal] == sign)) if unequal.any() else float("nan"),
        "reward": float(np.mean((np.sign(by_model[unequal]) * sign + 1) / 2)) if unequal.any() else float("nan"),
    }
    result["parts"] = _by_length(points(data, scores), longer * data.better, unit, other, resampling)
    return result


def _correlations(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Correlations with length of the model and of people, and their difference, from `[., 5]` sums of products."""
    with np.errstate(invalid="ignore", divide="ignore"):
        model = sums[:, 0] / np.sqrt(sums[:, 2] * sums[:, 3])
        people = sums[:, 1] / np.sqrt(sums[:, 2] * sums[:, 4])
    return model, people, model - people


def _by_length(
    gained: NDArray[np.float64],
    longer: NDArray[np.float64],
    unit: NDArray[np.intp],
    other: NDArray[np.intp] | None,
    resampling: Resampling,
) -> list[dict[str, Any]]:
    """Accuracy of decided pairs in parts by how much longer the better response is."""
    decided = ~np.isnan(gained)
    edges = np.unique(np.quantile(longer[decided], np.linspace(0, 1, PARTS + 1)[1:-1])) if decided.any() else []
    place = np.searchsorted(edges, longer, side="left")
    parts = []
    for number in range(len(edges) + 1):
        inside = decided & (place == number)
        if not inside.any():
            continue
        accuracy, interval = resampling.share(gained[inside], unit[inside], None if other is None else other[inside])
        parts.append(
            {
                "low": float(longer[inside].min()),
                "high": float(longer[inside].max()),
                "pairs": int(inside.sum()),
                "accuracy": accuracy,
                "accuracy_interval": interval,
            }
        )
    return parts


def style_matrix(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    """Share of rows in which the chosen response in style i scores above the rejected one in style j (RM-Bench).

    Equal scores count 0, as there.

    Args:
        chosen: `[N, K]` scores by style, plainest first.
        rejected: `[N, K]` likewise.

    Returns:
        `[K, K]`.
    """
    above = np.asarray(chosen, dtype=float)[:, :, None] > np.asarray(rejected, dtype=float)[:, None, :]
    return above.mean(axis=0)


def style_levels(matrix: NDArray[np.float64]) -> dict[str, float]:
    """RM-Bench's three levels of a style matrix, and their mean.

    Returns:
        "hard" (mean of the upper triangle: the worse response is the fancier), "normal" (diagonal) and "easy" (lower
        triangle), and "average".
    """
    upper, lower = np.triu_indices(len(matrix), k=1), np.tril_indices(len(matrix), k=-1)
    levels = {
        "hard": float(matrix[upper].mean()),
        "normal": float(np.diag(matrix).mean()),
        "easy": float(matrix[lower].mean()),
    }
    return {**levels, "average": sum(levels.values()) / 3}


def measure_styles(data: Comparisons, scores: NDArray[np.float64], resampling: Resampling) -> dict[str, Any] | None:
    """Style matrix of rows with the same content in K styles; None without such rows.

    Returns:
        "styles" (names), "matrix" `[K][K]`, "hard", "normal", "easy" and "average" with "..._interval", and "rows".
    """
    count = len(data.styles)
    if not count:
        return None
    sides = scores.reshape(-1, 2, count)
    chosen, rejected = sides[:, 0], sides[:, 1]
    above = (chosen[:, :, None] > rejected[:, None, :]).astype(float).reshape(len(sides), -1)
    unit = data.unit_of[:: 2 * count]
    ones = np.ones((len(sides), 1))
    sums = resampling.sums(np.concatenate([above, ones], axis=1), unit)
    levels = style_levels(style_matrix(chosen, rejected))
    drawn = [style_levels(row[:-1].reshape(count, count) / row[-1]) for row in sums if row[-1]]
    return {
        "rows": len(sides),
        "styles": list(data.styles),
        "matrix": style_matrix(chosen, rejected).tolist(),
        **levels,
        **{f"{name}_interval": resampling.interval([level[name] for level in drawn]) for name in levels},
    }
