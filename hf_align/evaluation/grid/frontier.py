"""Gain against KL, with best-of-n as the anchor.

Best-of-n changes no weights, and its KL from the base is at most log n - (n - 1)/n, so its curve says what that much
KL buys without training. The x axis is sqrt(KL), in which Gao et al. (2022) find gains nearly linear; between two n the
curve is a line in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.evaluation.best_of_n import best_of_n_kl
from hf_align.evaluation.grid.crossed import Table, crossed_mean
from hf_align.evaluation.grid.runs import BEST_OF_N, Figures, Run
from hf_align.evaluation.grid.summary import gain_of, stacked, table_of

SMALLEST_KL = 1e-6
ByLabel = Mapping[str, Mapping[int, Run]]
Anchor = Mapping[int, Table]
"""Gains `[S, P]` of best-of-n by n, ascending."""


def measure_frontier(runs: ByLabel, base: Mapping[int, Figures], name: str = "judge") -> dict[str, Any] | None:
    """Where algorithms are on the plane of KL and gain, and on which side of best-of-n.

    An algorithm is compared with the curve at its own mean KL, prompt by prompt; the uncertainty of its KL counts
    through the curve's slope there (delta method). Best-of-n trains nothing, so its seeds are averaged for each prompt.
    Its true KL may be smaller than the bound at which it is drawn, so "below" is safe, and "above" is above the bound.

    Args:
        runs: Runs by label and seed.
        base: The base's figures by seed.
        name: "judge" or "reward".

    Returns:
        "points": by algorithm "label", "kl" and "gain" (estimates), "side" ("above", "below", "undecided"; "beyond"
        where its KL is larger than that of the largest n and it isn't below that point; None without best-of-n) and
        "difference" (its gain minus that of the curve, or beyond it minus that of the largest n). "anchor": by n "n",
        "kl" and "gain". None without any point.
    """
    anchor = _anchor(runs, base, name)
    points = []
    for label, by_seed in runs.items():
        kl = table_of(by_seed, "kl")
        gains = stacked([gain_of(run.figures, base[seed], name) for seed, run in by_seed.items()])
        if kl is None or gains is None or any(run.algorithm == BEST_OF_N for run in by_seed.values()):
            continue
        point = {"label": label, "kl": crossed_mean(kl).to_json(), "gain": crossed_mean(gains).to_json()}
        points.append(point | (_side(gains, kl, anchor) if anchor else {"side": None, "difference": None}))
    curve = [
        {"n": n, "kl": best_of_n_kl(n), "gain": crossed_mean(gains, trained=False).to_json()}
        for n, gains in anchor.items()
    ]
    return {"points": points, "anchor": curve} if points or curve else None


def _anchor(runs: ByLabel, base: Mapping[int, Figures], name: str) -> Anchor:
    """Gains of the first best-of-n of the grid, by the n that all its seeds have."""
    by_seed = next((each for each in runs.values() if any(run.algorithm == BEST_OF_N for run in each.values())), {})
    sizes = set.intersection(*(set(run.by_n) for run in by_seed.values())) if by_seed else set()
    found = {
        n: stacked([gain_of(run.by_n[n], base[seed], name) for seed, run in by_seed.items()]) for n in sorted(sizes)
    }
    return {n: gains for n, gains in found.items() if gains is not None}


def _side(gains: Table, kl: Table, anchor: Anchor) -> dict[str, Any]:
    """On which side of the curve, and by how much."""
    distance, largest = max(float(kl.mean()), 0.0), max(anchor)
    if distance > best_of_n_kl(largest):
        difference = crossed_mean(gains - anchor[largest].mean(axis=0))
        side = "below" if difference.interval[1] < 0 else "beyond"
    else:
        height, slope = curve_at(distance, {n: table.mean(axis=0) for n, table in anchor.items()})
        difference = crossed_mean(gains - height - slope * (kl - kl.mean()))
        low, high = difference.interval
        side = "above" if low > 0 else "below" if high < 0 else "undecided"
    return {"side": side, "difference": difference.to_json()}


def curve_at(kl: float, anchor: Mapping[int, NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    """Best-of-n's gains `[P]` at a KL within its range, and the slope of their mean in KL.

    Args:
        kl: Nats.
        anchor: `[P]` gains by n, ascending; without n = 1 the curve begins at no gain and no KL.
    """
    nothing = np.zeros_like(next(iter(anchor.values())))
    nodes = [
        *([] if 1 in anchor else [(0.0, nothing)]),
        *((best_of_n_kl(n) ** 0.5, gains) for n, gains in anchor.items()),
    ]
    if len(nodes) == 1:
        return nodes[0][1], 0.0
    root = kl**0.5
    place = min(int(np.searchsorted([x for x, _ in nodes[1:]], root)), len(nodes) - 2)
    (left, low), (right, high) = nodes[place], nodes[place + 1]
    part = (root - left) / (right - left)
    rise = float((high - low).mean()) / (right - left)
    return low + part * (high - low), rise / (2 * root) if kl > SMALLEST_KL else 0.0
