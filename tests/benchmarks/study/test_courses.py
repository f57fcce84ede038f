import json

import numpy as np

from benchmarks.study.courses import FILE, keep, stops_at, table
from hf_align.evaluation.over_optimization import Course

RNG = np.random.default_rng(0)
KL = np.linspace(0, 9, 10)


def course(judge: np.ndarray) -> Course:
    noise = RNG.normal(scale=0.05, size=(64, 10))
    kl = np.tile(KL, (64, 1))
    return Course("rl", list(range(0, 160, 16)), kl, np.tile(KL, (64, 1)) + noise, judge + noise, 1.0, 1.0)


def test_a_run_stops_at_the_second_sure_fall_in_a_row_and_the_table_says_where_and_what_is_left(tmp_path):
    falls, rises = course(np.minimum(KL, 8 - KL)), course(KL)
    assert stops_at(falls) == 6 and stops_at(rises) is None  # highest at point 4, below it at 5 and 6
    for name, each in {"single": falls, "uncertainty_weighted": rises, "mean": rises}.items():
        folder = tmp_path / "out" / "0" / name
        folder.mkdir(parents=True)
        (folder / "over_optimization.json").write_text(json.dumps({"course": each.to_json()}))
        if name != "mean":  # which hasn't finished
            (folder / "adapter_config.json").touch()
    keep(tmp_path / "out", tmp_path)
    assert (tmp_path / FILE).exists()
    _, _, single, weighted = table(tmp_path).splitlines()
    assert "| single | 0 | 144 | 9.0 |" in single and "| 96 (6.0) |" in single and "| -25% [" in single
    assert weighted.startswith("| uncertainty-weighted |") and "| 100% [100, 100] |" in weighted and "never" in weighted


def test_without_runs_there_is_no_table(tmp_path):
    assert table(tmp_path) == ""
