"""Gain against KL: best-of-n's curve by hand, and on which side of it algorithms are."""

from __future__ import annotations

import numpy as np
import pytest

from hf_align.evaluation.grid.frontier import curve_at, measure_frontier
from hf_align.evaluation.grid.runs import Run

ZERO = np.zeros(50)
BASE = {0: {"judge": ZERO}, 1: {"judge": ZERO}}
RNG = np.random.default_rng(0)


def noise() -> np.ndarray:
    return RNG.normal(0, 0.05, 50)


def policy(gain: float, kl: float) -> dict[int, Run]:
    return {s: Run("p", "dpo", s, {"judge": gain + noise(), "kl": kl + noise()}) for s in (0, 1)}


def best_of_n(gains: dict[int, float]) -> dict[int, Run]:
    by_n = {n: {"judge": gain + noise()} for n, gain in gains.items()}
    return {0: Run("best-of-n", "best-of-n", 0, by_n[max(gains)], by_n)}


def test_the_curve_is_a_line_in_the_root_of_kl() -> None:
    # n = 2: KL log 2 - 1/2, root .4395; a quarter of that KL is half of that root.
    kl = np.log(2) - 0.5
    gains = {1: np.array([0.0, 0.2]), 2: np.array([1.0, 0.6])}
    height, slope = curve_at(kl / 4, gains)
    assert height == pytest.approx([0.5, 0.4])
    step = 1e-6
    assert slope == pytest.approx((curve_at(kl / 4 + step, gains)[0].mean() - height.mean()) / step, rel=1e-3)
    assert curve_at(0.0, gains) == (pytest.approx([0.0, 0.2]), 0.0)
    assert curve_at(kl, gains)[0] == pytest.approx([1.0, 0.6])
    assert curve_at(kl / 4, {2: gains[2]})[0] == pytest.approx([0.5, 0.3])  # without n = 1 it begins at nothing
    assert curve_at(0.0, {1: gains[1]}) == (pytest.approx([0.0, 0.2]), 0.0)


def test_sides_of_the_curve() -> None:
    runs = {
        "best": best_of_n({1: 0.0, 4: 0.4, 16: 0.8}),
        "better": policy(0.9, 0.6),
        "worse": policy(0.1, 0.6),
        "on it": policy(0.3882, 0.6),  # 0.4 sqrt(0.6 / 0.636), where 0.636 is the KL at n = 4
        "far": policy(1.5, 9.0),
        "far and low": policy(0.5, 9.0),
        "far and as high": policy(0.8, 9.0),
    }
    frontier = measure_frontier(runs, BASE)
    assert frontier is not None
    sides = {each["label"]: each["side"] for each in frontier["points"]}
    assert sides == {
        **{"better": "above", "worse": "below", "on it": "undecided"},
        **{"far": "beyond", "far and as high": "beyond", "far and low": "below"},
    }
    far = next(each for each in frontier["points"] if each["label"] == "far")
    assert far["difference"]["mean"] == pytest.approx(0.7, abs=0.03)  # beyond the range: against the largest n
    assert [each["n"] for each in frontier["anchor"]] == [1, 4, 16]
    assert frontier["anchor"][1]["kl"] == pytest.approx(np.log(4) - 0.75)


def test_seeds_that_move_along_the_curve_differ_from_it_alike() -> None:
    top = np.log(4) - 0.75
    exact = {n: {"judge": np.full(50, gain)} for n, gain in ((1, 0.0), (4, 0.4))}
    along = {
        seed: Run("p", "dpo", seed, {"judge": np.full(50, 0.4 * (kl / top) ** 0.5), "kl": np.full(50, kl)})
        for seed, kl in enumerate((0.45, 0.55))
    }
    frontier = measure_frontier({"best": {0: Run("b", "best-of-n", 0, exact[4], exact)}, "along": along}, BASE)
    assert frontier is not None
    assert frontier["points"][0]["difference"]["by_seed"] == pytest.approx([0.0, 0.0], abs=2e-3)


def test_without_best_of_n_or_kl() -> None:
    frontier = measure_frontier({"dpo": policy(0.3, 1.0)}, BASE)
    assert frontier is not None and frontier["anchor"] == [] and frontier["points"][0]["side"] is None
    assert measure_frontier({"dpo": {0: Run("dpo", "dpo", 0, {"judge": ZERO})}}, BASE) is None
    assert measure_frontier({"dpo": policy(0.3, 1.0)}, BASE, "reward") is None
