"""Win rates by hand, and length-controlled ones where length decides nothing or all."""

from __future__ import annotations

import numpy as np
import pytest

from hf_align.evaluation.win_rate import (
    measure_length_controlled,
    measure_win_rate,
    wins_of,
)
from hf_align.pair_statistics import length_controlled
from hf_align.statistics import Resampling


def test_ties_count_half_and_intervals_are_over_prompts() -> None:
    scores = {"base": [0.0, 1.0, 2.0, 3.0], "dpo": [1.0, 1.0, 1.0, 5.0]}
    figures = measure_win_rate(scores, "base", Resampling(4, resamples=400), np.arange(4))["dpo"]
    assert figures["win_rate"] == (1 + 0.5 + 0 + 1) / 4
    assert (figures["wins"], figures["ties"], figures["losses"]) == (2, 1, 1)
    low, high = figures["win_rate_interval"]
    assert 0 <= low < figures["win_rate"] < high <= 1
    # Ten copies of one prompt say no more than one prompt.
    copies = {name: [values[0]] * 10 for name, values in scores.items()}
    once = measure_win_rate(copies, "base", Resampling(1, resamples=20), np.zeros(10, dtype=int))["dpo"]
    assert once["win_rate"] == 1 and np.isnan(once["win_rate_interval"]).all()


def test_what_length_cannot_decide_or_decides_alone_stays_finite() -> None:
    resampling, unit = Resampling(20, resamples=60), np.arange(20)
    lengths = {"base": [5.0] * 20, "dpo": [5.0] * 20, "long": [9.0] * 20}
    scores = {"base": [0.0] * 20, "dpo": [1.0] * 15 + [-1.0] * 5, "long": [1.0] * 20}
    figures = measure_length_controlled(scores, "base", lengths, resampling, unit)
    assert figures["dpo"]["length_controlled"] == pytest.approx(0.75), "no difference of length: the win rate"
    assert np.isnan(figures["long"]["length_controlled"]) and not figures["long"]["within"]
    longer = np.linspace(-5, 5, 20)
    alone = length_controlled(wins_of(longer, np.zeros(20)), longer, resampling, unit)
    assert alone["length_controlled"] == pytest.approx(0.5, abs=0.01) and 3 < alone["length_weight"] < 40
    always = length_controlled(np.ones(20), longer, resampling, unit)
    assert always["length_controlled"] == pytest.approx(1, abs=1e-6)
