"""Differences response by response, which of them are real, and what flipped labels cost."""

from __future__ import annotations

import numpy as np
import pytest

from hf_align.evaluation.grid.crossed import crossed_mean
from hf_align.evaluation.grid.differences import clean_twins, compare_all, lost_to_flips
from hf_align.evaluation.grid.runs import Run
from hf_align.statistics import holm

RNG = np.random.default_rng(0)
BASE = {seed: {"judge": RNG.normal(0, 0.3, 30)} for seed in range(3)}


def runs_of(
    mean: float, seeds: tuple[int, ...] = (0, 1, 2), algorithm: str = "dpo", **figures: float
) -> dict[int, Run]:
    return {
        seed: Run(
            algorithm,
            algorithm,
            seed,
            {"judge": RNG.normal(mean, 0.1, 30), **{name: np.full(30, value) for name, value in figures.items()}},
        )
        for seed in seeds
    }


def test_pairs_are_subtracted_response_by_response_over_common_seeds() -> None:
    runs = {"a": runs_of(0.5, kl=3.0), "b": runs_of(0.1, (1, 2), kl=1.0), "c": runs_of(0.5, (2,)), "d": runs_of(0.1)}
    pairs = {(each["a"], each["b"]): each for each in compare_all(runs, BASE, "judge")}
    first = pairs["a", "b"]
    table = np.stack([runs["a"][seed].figures["judge"] - runs["b"][seed].figures["judge"] for seed in (1, 2)])
    expected = crossed_mean(table).to_json()
    assert first["seeds"] == [1, 2] and first["difference"]["mean"] == pytest.approx(expected["mean"])
    assert first["difference"]["interval"] == pytest.approx(expected["interval"])
    assert first["kl"]["mean"] == 2 and pairs["a", "c"]["kl"] is None
    assert pairs["a", "d"]["real"] and not pairs["b", "d"]["real"]
    # One common seed says nothing about another training, however small p is, and is no test of the family.
    alone = pairs["b", "c"]
    assert alone["difference"]["p"] < 1e-3 and not alone["enough"] and not alone["real"] and np.isnan(alone["adjusted"])
    tested = [each for each in pairs.values() if each["enough"]]
    assert [each["adjusted"] for each in tested] == pytest.approx(holm([each["difference"]["p"] for each in tested]))


def test_best_of_n_counts_with_the_mean_gain_of_its_seeds() -> None:
    runs = {"dpo": runs_of(0.5), "best": runs_of(0.2, (0, 1), "best-of-n")}
    [pair] = compare_all(runs, BASE, "judge")
    gains = {
        label: np.stack([run.figures["judge"] - BASE[seed]["judge"] for seed, run in by_seed.items()])
        for label, by_seed in runs.items()
    }
    assert pair["seeds"] == [0, 1, 2]
    assert pair["difference"] == crossed_mean(gains["dpo"] - gains["best"].mean(axis=0)).to_json()
    # What the page shows: the difference of the two gains, also where best-of-n has fewer seeds.
    assert pair["difference"]["mean"] == pytest.approx(gains["dpo"].mean() - gains["best"].mean())


def test_a_judge_that_only_compares_gives_differences_of_win_rates() -> None:
    runs = {
        label: {s: Run(label, label, s, {"win": np.full(4, win)}) for s in (0, 1)}
        for label, win in (("a", 1.0), ("b", 0.5))
    }
    [pair] = compare_all(runs, {0: {}, 1: {}}, "win")
    assert pair["difference"]["mean"] == 0.5


def test_lost_is_clean_minus_flipped() -> None:
    clean = {"dpo": runs_of(0.5), "ppo": runs_of(0.3), "sft": runs_of(0.1)}
    flipped = {"dpo": runs_of(0.1), "ppo": runs_of(0.3, (0,))}
    lost = {each["label"]: each for each in lost_to_flips(clean, flipped, BASE, "judge")}
    assert (
        list(lost) == ["dpo", "ppo"]
        and lost["dpo"]["real"]
        and lost["dpo"]["lost"]["mean"] == pytest.approx(0.4, abs=0.05)
    )
    assert lost["ppo"]["seeds"] == [0] and not lost["ppo"]["real"]


def test_a_flipped_data_set_is_compared_with_its_own_clean_one() -> None:
    datasets = {
        "few": {"pairs": "a", "limit": 100},
        "all": {"pairs": "a"},
        "noisy": {"pairs": "a", "flip": 0.25, "reward": "other", "flipped": [3]},
        "other": {"pairs": "b", "flip": 0.25},
    }
    assert clean_twins(datasets) == {"noisy": "all"}
