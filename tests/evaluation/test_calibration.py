"""Calibration against hand-counted tables and independent computations."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from hf_align.data.comparison_rows import read_comparisons
from hf_align.evaluation.calibration import calibration_table, fit_temperature, measure_calibration
from hf_align.pair_statistics import one_by_one
from hf_align.statistics import Resampling


def _table(difference: Any, label: Any, votes: Any = None, bins: int = 15, **more: Any) -> dict[str, Any]:
    d, y = np.asarray(difference, dtype=float), np.asarray(label, dtype=float)
    draw = one_by_one(expit(d), np.ones(len(d), dtype=np.intp) if votes is None else np.asarray(votes))
    return calibration_table(d, y, draw, np.arange(len(d)), None, Resampling(len(d), resamples=50), bins, **more)


def test_a_table_counted_by_hand() -> None:
    # Four bins. p = .9 (right), .9 (wrong), .6 (right), and their mirror images .1, .1, .4.
    table = _table([logit(0.9), logit(0.9), logit(0.6)], [1.0, 0.0, 1.0], bins=4)
    counted = [(b["low"], b["high"], b["pairs"], b["predicted"], b["observed"]) for b in table["bins"]]
    assert counted == [
        pytest.approx((0.0, 0.25, 2, 0.1, 0.5)),
        pytest.approx((0.25, 0.5, 1, 0.4, 0.0)),
        pytest.approx((0.5, 0.75, 1, 0.6, 1.0)),
        pytest.approx((0.75, 1.0, 2, 0.9, 0.5)),
    ]
    assert table["ece"] == pytest.approx((2 * 0.4 + 0.4 + 0.4 + 2 * 0.4) / 6)
    assert table["brier"] == pytest.approx((0.01 + 0.81 + 0.16) / 3)
    assert table["nll"] == pytest.approx(-(math.log(0.9) + math.log(0.1) + math.log(0.6)) / 3)
    assert table["brier_floor"] == table["nll_floor"] == 0


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_probabilities_of_exactly_0_and_1_are_in_the_outer_bins(scale: float) -> None:
    # In float64 sigmoid(40) is exactly 1 and sigmoid(-800) exactly 0.
    assert expit(40.0) == 1.0 and expit(-800.0) == 0.0
    table = _table(scale * np.array([40.0, 40.0, 40.0, -40.0]), [1.0, 1.0, 1.0, 1.0])
    first, last = table["bins"]
    assert (first["low"], first["pairs"], last["high"], last["pairs"]) == (0.0, 4, 1.0, 4)
    assert (last["predicted"], last["observed"]) == pytest.approx((1.0, 0.75))
    assert (first["predicted"], first["observed"]) == pytest.approx((0.0, 0.25), abs=1e-9)
    assert table["ece"] == table["brier"] == pytest.approx(0.25)
    assert table["nll"] == pytest.approx(scale * 10)


def test_brier_and_nll_against_shares_are_those_against_every_vote() -> None:
    difference, label, votes = [0.3, -1.2], [0.75, 0.2], [4, 5]
    table = _table(difference, label, votes)
    outcomes = [([1, 1, 1, 0], 0.3), ([1, 0, 0, 0, 0], -1.2)]
    brier = [np.mean([(expit(d) - y) ** 2 for y in ys]) for ys, d in outcomes]
    nll = [np.mean([-math.log(expit(d) if y else expit(-d)) for y in ys]) for ys, d in outcomes]
    assert (table["brier"], table["nll"]) == pytest.approx((np.mean(brier), np.mean(nll)))
    entropy = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in label]
    assert table["nll_floor"] == pytest.approx(np.mean(entropy))
    assert table["brier_floor"] == pytest.approx(np.mean([p * (1 - p) for p in label]))


def test_a_calibrated_model_has_the_ece_of_its_noise_floor() -> None:
    rng = np.random.default_rng(0)
    difference = rng.logistic(size=2000)
    probability = expit(difference)
    eces = [_table(difference, rng.random(2000) < probability, simulations=1)["ece"] for _ in range(30)]
    table = _table(difference, rng.random(2000) < probability, seed=1)
    assert table["ece_floor"] == pytest.approx(np.mean(eces), rel=0.1)
    assert table["ece_floor"] > 0.01 and table["ece"] < table["ece_floor_high"] * 1.3
    inside = [b["expected"][0] <= b["observed"] <= b["expected"][1] for b in table["bins"]]
    assert np.mean(inside) > 0.7
    # One-sided, with the better response always first, the same model seems to be off by .3.
    assert np.abs(np.maximum(probability, 1 - probability) - 1).mean() > 0.2
    assert _table(difference, probability, np.full(2000, 50), seed=1)["ece_floor"] < table["ece_floor"] / 3


def test_the_mirrored_ece_is_that_of_both_orders() -> None:
    rng = np.random.default_rng(1)
    difference, label = rng.normal(size=400) * 2, (rng.random(400) < 0.6).astype(float)
    p, y = np.concatenate([expit(difference), expit(-difference)]), np.concatenate([label, 1 - label])
    ece = 0.0
    for low in np.arange(15) / 15:
        inside = (p >= low) & (p < low + 1 / 15)
        ece += abs((p[inside] - y[inside]).sum()) / len(p)
    assert _table(difference, label)["ece"] == pytest.approx(ece)


def test_the_fitted_temperature_is_the_one_that_was_planted() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(size=4000) * 2
    temperature, at_limit = fit_temperature(3 * true, expit(true))
    assert temperature == pytest.approx(3, rel=1e-3) and not at_limit
    assert fit_temperature(np.array([1.0, 2.0, 3.0]), np.ones(3))[1]
    rows = [{"prompt": str(n), "chosen": "a", "rejected": "b", "label": float(p)} for n, p in enumerate(expit(true))]
    data = read_comparisons(rows)
    scores = np.zeros(len(data.text_of))
    scores[data.first] = 3 * true
    figures = measure_calibration(data, scores, Resampling(data.units, resamples=20))
    assert figures["soft_labels"] and figures["temperature"]["judged_pairs"] == 4000
    assert figures["temperature"]["halves"] == pytest.approx([3, 3], rel=1e-2)
    assert figures["fitted"]["ece"] < 0.01 < 0.1 < figures["raw"]["ece"]
    assert figures["fitted"]["nll"] == pytest.approx(figures["fitted"]["nll_floor"], rel=1e-3)


def test_each_half_is_judged_by_the_temperature_of_the_other() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(size=400)
    rows = [{"prompt": str(n), "chosen": "a", "rejected": "b", "label": float(p)} for n, p in enumerate(expit(true))]
    data, scores = read_comparisons(rows), np.zeros(800)
    half = np.random.default_rng(7).permutation(400) % 2
    scores[data.first] = np.where(half == 0, 2, 5) * true  # too sure by 2 in one half, by 5 in the other
    figures = measure_calibration(data, scores, Resampling(400, resamples=5), seed=7)
    assert figures["temperature"]["halves"] == pytest.approx([2, 5], rel=1e-3)
    d, p = true * np.where(half == 0, 2 / 5, 5 / 2), expit(true)
    nll = -(p * np.log(expit(d)) + (1 - p) * np.log(expit(-d))).mean()
    assert figures["fitted"]["nll"] == pytest.approx(nll, rel=1e-3)


def test_a_pair_is_never_judged_by_a_temperature_fitted_on_its_texts() -> None:
    rows = [{"prompt": "p", "response": str(n), "rating": float(n)} for n in range(30)]
    data = read_comparisons(rows)
    assert data.unit == "texts"
    figures = measure_calibration(data, np.arange(30.0), Resampling(data.units, resamples=5))
    # Halves of 15 texts: 2 x 105 of the 435 pairs lie within one.
    assert figures["temperature"]["judged_pairs"] == 210


def test_no_temperature_without_differences() -> None:
    data = read_comparisons([{"prompt": str(n), "chosen": "a", "rejected": "b"} for n in range(9)])
    figures = measure_calibration(data, np.zeros(18), Resampling(data.units, resamples=5))
    assert figures["temperature"] is None and figures["raw"]["ece"] == 0.0
