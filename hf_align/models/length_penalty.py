"""The part of a reward that length alone adds: its slope on the tokens of responses that people judged alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hf_align.collators.rankings import preferences_of
from hf_align.errors import UserError

FLAT = 1e-8
"""Least share of the lengths' squares that the judgement must leave unexplained."""


def length_slope(rewards: Sequence[Sequence[float]], rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Slope of the reward on a response's tokens at equal judgement.

    Least squares over the pairs of responses to one prompt, d = b * y + c * l, with d the difference of their rewards,
    l of their tokens and y of their judgement; c is the slope. There is no intercept, since every pair counts in both
    directions. What people themselves like about longer responses is in y and stays in the reward, so labels with the
    bias that is to be taken out would hide it: fit on a set that was judged with care.

    Args:
        rewards: Of each row's responses.
        rows: Tokenised rows: `response_ids`, and what says who is better (see `judged_differences`).
        name: The set's name, for messages.

    Returns:
        c, per token. Each row counts alike, whatever its number of pairs.

    Raises:
        UserError: No two judged responses to a prompt differ in length beyond what their judgement says.
    """
    table: list[tuple[float, float, float]] = []
    for scores, row in zip(rewards, rows, strict=True):
        lengths = [len(ids) for ids in row["response_ids"]]
        pairs = list(combinations(range(len(lengths)), 2))
        judged = [(y, i, j) for y, (i, j) in zip(judged_differences(row), pairs, strict=True) if not math.isnan(y)]
        scale = 1 / math.sqrt(max(len(judged), 1))
        table += [((scores[i] - scores[j]) * scale, y * scale, (lengths[i] - lengths[j]) * scale) for y, i, j in judged]
    d, y, length = np.array(table, dtype=float).reshape(-1, 3).T
    # What is left of the lengths' differences once the judgement's are taken out.
    left = length - y * (y @ length / (y @ y) if y.any() else 0.0)
    if left @ left <= FLAT * (length @ length):
        raise UserError(
            f"{name} doesn't show what length adds to the reward: responses to one prompt are equally long, or their "
            "lengths differ just as their judgements do; name a set with responses of several lengths."
        )
    return float(left @ d / (left @ left))


def judged_differences(row: Mapping[str, Any]) -> list[float]:
    """How much better each response of a tokenised row is than each later one, in the order of `combinations`.

    The difference of scores or mean ratings where there are any; otherwise from -1 to 1 by the label or the ranks,
    times the margin of a pair. NaN: the two weren't compared.
    """
    if row.get("scores") is not None:
        return [first - second for first, second in combinations(row["scores"], 2)]
    if row.get("ranks") is not None:
        return [2 * share - 1 for share in preferences_of(row["ranks"])]
    label, margin = row.get("label"), row.get("margin")
    return [(1.0 if label is None else 2 * label - 1) * (1.0 if margin is None else margin)]
