"""Best-of-n: the score of the response that a reward model would pick among n, by an independent judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from hf_align.data.comparisons import Comparisons
from hf_align.statistics import Resampling

FEWEST_PROMPTS = 10
"""Fewest prompts for an interval over prompts."""


def expected_best_of_n(proxy: ArrayLike, gold: ArrayLike, ns: Sequence[int]) -> NDArray[np.float64]:
    """Expected gold score of the response with the highest proxy score among n drawn of N without replacement.

    The mean over all subsets, without drawing any: with responses in ascending order of the proxy the i-th is the best
    of C(i-1, n-1) of the C(N, n) subsets (as in Coste et al., 2023). Responses with equal proxy scores are picked with
    equal probability.

    Args:
        proxy: `[N]` scores that pick.
        gold: `[N]` scores that count.
        ns: Sizes n, from 1 to N.

    Returns:
        `[len(ns)]`.
    """
    proxy, gold = np.asarray(proxy, dtype=float), np.asarray(gold, dtype=float)
    _, tied, counts = np.unique(proxy, return_inverse=True, return_counts=True)
    means = np.bincount(tied, gold) / counts
    ordered = np.repeat(means, counts)
    total, place = len(proxy), np.arange(1, len(proxy) + 1)

    def log_binomial(above: Any, below: Any) -> Any:
        return gammaln(above + 1) - gammaln(below + 1) - gammaln(above - below + 1)

    results = []
    for n in ns:
        best = place[n - 1 :]
        weights = np.exp(log_binomial(best - 1, n - 1) - log_binomial(total, n))
        results.append(float(weights @ ordered[n - 1 :]))
    return np.asarray(results)


def best_of_n_kl(n: int) -> float:
    """Bound of KL(best-of-n || policy): log n - (n - 1)/n (Stiennon et al., 2020; Beirami et al., 2024)."""
    return float(np.log(n) - (n - 1) / n)


def measure_best_of_n(
    data: Comparisons,
    scores: NDArray[np.float64],
    resampling: Resampling,
    judged: NDArray[np.float64] | None = None,
) -> dict[str, Any] | None:
    """Best-of-n curve of a reward model.

    Args:
        data: Responses, grouped by prompt.
        scores: `[R]` the model's.
        resampling: Draws of `data`'s units.
        judged: `[R]` an independent judge's scores. Default: people's, where rows have them.

    Returns:
        "gold" ("judge" or people's "ratings", "scores" or "ranks"), "prompts", "responses" (N, the median number of
        responses to a prompt), "left_out" (prompts with fewer), and "curve": for n = 1, 2, 4, ... N "n", "kl", "gold"
        with "gold_interval" over prompts (NaN for fewer than 10), "possible" (picked by the gold scores themselves)
        and "share" of the possible gain (None where there is none). None if no prompt has two scored responses.
    """
    gold = data.human if judged is None else judged
    groups = [group for group in _groups(data, gold, by_prompt=judged is not None) if len(group) > 1]
    if not groups:
        return None
    most = int(np.median([len(group) for group in groups]))
    used = [group for group in groups if len(group) >= most]
    ns = sorted({2**power for power in range(most.bit_length())} | {most})
    picked = np.stack([expected_best_of_n(scores[group], gold[group], ns) for group in used])
    possible = np.stack([expected_best_of_n(gold[group], gold[group], ns) for group in used])
    unit = np.asarray([data.unit_of[group[0]] for group in used])
    curve = []
    for place, n in enumerate(ns):
        mean, interval = resampling.ratio(picked[:, place], np.ones(len(used)), unit)
        gain, most_gain = mean - picked[:, 0].mean(), possible[:, place].mean() - possible[:, 0].mean()
        enough = len(used) >= FEWEST_PROMPTS and data.unit == "prompts"
        curve.append(
            {
                "n": n,
                "kl": best_of_n_kl(n),
                "gold": mean,
                "gold_interval": interval if enough else [float("nan"), float("nan")],
                "possible": float(possible[:, place].mean()),
                "share": float(gain / most_gain) if most_gain > 1e-12 else None,
            }
        )
    return {
        "gold": data.human_kind if judged is None else "judge",
        "prompts": len(used),
        "responses": most,
        "left_out": len(groups) - len(used),
        "curve": curve,
    }


def _groups(data: Comparisons, gold: NDArray[np.float64], *, by_prompt: bool) -> list[NDArray[np.intp]]:
    """Entries with a gold score of each prompt, or of each of its rows; a text counts once."""
    row = data.prompt_of if by_prompt else data.group_of * len(data.prompts) + data.prompt_of
    entries = np.sort(np.unique(row * len(data.texts) + data.text_of, return_index=True)[1])
    entries = entries[~np.isnan(gold[entries])]
    order = entries[np.argsort(row[entries], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(row[order])) + 1) if len(order) else []
