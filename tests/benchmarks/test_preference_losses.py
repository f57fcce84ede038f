import json

import numpy as np
import pytest

from benchmarks.preference_losses import SETTINGS, figures_of, jobs_of, main, summarise, table
from hf_align.losses import PREFERENCE_LOSSES

BEFORE, LENGTHS = [[-8.0, -4.0], [-6.0, -6.0], [-2.0, -9.0]], [[4, 4], [2, 3], [2, 3]]
"""Means -2 and -1, -3 and -2, -1 and -3: only the last pair is ranked right."""


def result(loss: str, seed: int, after: list[list[float]]) -> dict:
    entry = {"loss": loss, "seed": seed, "rows": 32, "steps": 2, "settings": {}, "seconds": 3.0, "machine": {}}
    return {**entry, "before": BEFORE, "after": after, "lengths": LENGTHS, "losses": [4.0, 2.0]}


def test_figures_of_a_run_by_hand():
    figures = figures_of(result("simpo", 0, [[-4.0, -8.0], [-7.0, -6.0], [-2.0, -9.0]]))
    assert {name: values.tolist() for name, values in figures.items()} == {
        "implicit": [1, 0, 0.5],  # log-ratios 4 and -4, -1 and 0, none
        "before": [0, 0, 1],
        "after": [1, 0, 1],
        "chosen": [1, -0.5, 0],
        "rejected": [-1, 0, 0],
    }


def test_seeds_are_averaged_before_pairs_are_resampled(tmp_path, capsys):
    for seed, after in ((0, [[-4.0, -8.0], [-7.0, -6.0], [-2.0, -9.0]]), (10, BEFORE)):
        path = tmp_path / "sigmoid+sft" / f"{seed}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result("sigmoid+sft", seed, after)))
    summary = summarise(tmp_path)
    (loss,) = summary.values()
    assert loss["reference"] and loss["seeds"] == [0, 10] and loss["pairs"] == 3
    gain = loss["figures"]["gain"]
    assert gain["mean"] == pytest.approx(1 / 6) and gain["interval"][0] == 0 and gain["interval"][1] <= 0.5
    assert loss["figures"]["implicit"]["by_seed"] == [0.5, 0.5] and loss["loss"] == {"first": 4.0, "last": 2.0}
    main(["table", "--out", str(tmp_path), "--save", str(tmp_path / "saved.json")])
    assert capsys.readouterr().out.strip() == table(summary)
    assert "| sigmoid+sft | yes | 0.500 [" in table(summary)
    assert json.loads((tmp_path / "saved.json").read_text()) == summary


def test_every_loss_has_settings_and_shares_cover_all_runs_once():
    assert [*PREFERENCE_LOSSES] and {*PREFERENCE_LOSSES} == {name for name in SETTINGS if "+" not in name}
    parts = [jobs_of(list(SETTINGS), [0, 1], f"{part}/4") for part in range(4)]
    assert sorted(job for part in parts for job in part) == sorted((loss, seed) for loss in SETTINGS for seed in (0, 1))
    assert np.ptp([len(part) for part in parts]) <= 1
    for part in ("4/4", "1", "a/2"):
        with pytest.raises(ValueError, match="give I/N"):
            jobs_of(["ipo"], [0], part)


def test_a_run_scores_the_same_pairs_before_and_after_and_is_done_once(tiny_model_dir, tmp_path, capsys):
    flags = ["run", "--base", tiny_model_dir, "--out", str(tmp_path), "--loss", "simpo", "--seed", "3", "--rows", "16"]
    flags += ["--steps", "1", "--held-out", "5"]
    main(flags)
    saved = json.loads((tmp_path / "simpo" / "3.json").read_text())
    assert np.shape(saved["before"]) == np.shape(saved["after"]) == np.shape(saved["lengths"]) == (5, 2)
    assert saved["before"] != saved["after"] and np.max(saved["before"]) < 0 and len(saved["losses"]) == 1
    main(flags)
    assert "is finished" in capsys.readouterr().out
