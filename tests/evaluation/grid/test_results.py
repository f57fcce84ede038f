"""A benchmark's results from its files: figures by hand, and the same bytes from the same files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from hf_align.errors import UserError
from hf_align.evaluation.grid import read_results
from tests.evaluation.grid.made_runs import CELLS, GRID, figures_of, write_grid, write_run

PLANNED = [*CELLS, *(("clean", "best-of-n", seed) for seed in (0, 1))]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grid(tmp_path_factory.mktemp("grid"))


def test_gains_and_wins_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path, None, "base", 0, {"judge": [0.0, 0.5, 1.0, 0.0], "length": [4, 4, 4, 4]})
    figures = {
        "judge": [1.0, 0.5, 0.0, 1.0],
        "length": [5, 3, 5, 3],
        "kl": [1, 2, 3, 4],
        "finished": [True, True, True, False],
    }
    write_run(tmp_path, "d", "cdpo", 0, figures, algorithm="dpo", options={"label_smoothing": 0.1})
    [entry] = read_results(tmp_path).summary["datasets"][0]["algorithms"]
    assert entry["judge"]["mean"] == 0.25 and entry["judge"]["over"] == "prompts" and entry["judge"]["spread"] is None
    assert entry["win_rate"]["mean"] == (1 + 0.5 + 0 + 1) / 4 and entry["ended"]["mean"] == 0.75
    assert entry["win_rate"]["p"] == pytest.approx(ttest_1samp([1, 0.5, 0, 1], 0.5).pvalue)  # pyright: ignore
    assert entry["length"]["p"] is None and entry["ended"]["p"] is None, "nothing is asked of them"
    assert entry["length"]["mean"] == 4 and entry["kl"]["mean"] == 2.5 and entry["reward"] is None
    # Of longer responses half win, of shorter ones three quarters: odds 1 and 3, so sqrt(3) at equal length.
    assert entry["length_controlled"]["mean"] == pytest.approx(3**0.5 / (1 + 3**0.5), abs=2e-3)
    assert entry["method"] == "cdpo" and entry["training_seconds"] == [10.0] and entry["stopped_by"] == {"samples": 1}


def test_a_grid_with_gaps(out: Path) -> None:
    results = read_results(out, GRID, PLANNED)
    summary = results.summary
    assert [each["name"] for each in summary["datasets"]] == ["clean", "flipped"]
    ppo = summary["datasets"][1]["algorithms"][1]
    assert ppo["seeds"] == [0, 1] and ppo["failed"] == 1
    assert summary["gaps"] == [
        {"dataset": "flipped", "label": "ppo", "seed": 2, "reason": "the loss is NaN in step <3>", "failed": True}
    ]
    [flips] = summary["flips"]
    assert (flips["clean"], flips["flipped"]) == ("clean", "flipped")
    dpo = next(each for each in flips["algorithms"] if each["label"] == "dpo")
    assert dpo["real"] and dpo["lost"]["mean"] == pytest.approx(0.4, abs=0.1)
    best = summary["datasets"][0]["algorithms"][2]
    assert best["judge"]["over"] == "prompts" and best["judge"]["spread"] is None and len(best["judge"]["by_seed"]) == 2
    assert [each["n"] for each in summary["datasets"][0]["frontier"]["anchor"]] == [1, 4, 16]
    [scores] = summary["datasets"][0]["curves"]
    # 64 rows in 8 steps: the logged steps 4 and 8 are at 32 and 64 rows; seeds differ by 1.
    assert scores["curves"]["dpo"] == [[32.0, pytest.approx(1.4), 0.4, 2.4], [64.0, pytest.approx(1.8), 0.8, 2.8]]
    assert "+0." in results.table() and "ppo" in str(results)


def check_bytes(out: Path, tmp_path: Path, names: set[str]) -> None:
    """A copy of the files, and a second reading, give the same bytes."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(out, copy)
    for name in names:
        read_results(out, GRID, PLANNED).save(tmp_path / "a" / name)
        read_results(copy, GRID, PLANNED).save(tmp_path / "b" / name)
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_same_files_give_the_same_bytes(out: Path, tmp_path: Path) -> None:
    check_bytes(out, tmp_path, {"benchmark.json", "table.md", "report.html"})
    content = json.loads((tmp_path / "a/benchmark.json").read_text())
    assert content["grid"] == GRID and content["summary"] == read_results(out, GRID, PLANNED).summary


@pytest.mark.slow
def test_the_same_files_give_the_same_picture(out: Path, tmp_path: Path) -> None:
    check_bytes(out, tmp_path, {"benchmark.png"})


def test_all_files_are_written(out: Path, tmp_path: Path) -> None:
    read_results(out, GRID, PLANNED).write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("benchmark.json", "benchmark.png", "report.html", "table.md")
    ]


def test_a_judge_that_only_compares(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for seed in (0, 1):
        write_run(tmp_path, None, "base", seed, {"length": rng.integers(4, 9, 20)})
        for label, rate in (("dpo", 0.9), ("sft", 0.5)):
            figures = figures_of(rng, prompts=20) | {"win": (rng.random(20) < rate).astype(float)}
            del figures["judge"]
            write_run(tmp_path, "d", label, seed, figures)
    results = read_results(tmp_path)
    [dataset] = results.summary["datasets"]
    assert results.summary["facts"]["compares_only"] and dataset["algorithms"][0]["judge"] is None
    assert dataset["differences"][0]["difference"]["mean"] > 0.1 and dataset["frontier"] is None
    assert "not measured" in results.table() and "win rate over the base" in results.to_html()


def test_another_format_is_refused(out: Path) -> None:
    with pytest.raises(UserError, match=r"\.md"):
        read_results(out).save("a.txt")
