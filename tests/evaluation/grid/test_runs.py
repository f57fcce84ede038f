"""Reading of runs: what is missing is listed, what is broken is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.evaluation.grid.runs import read_runs
from tests.evaluation.grid.made_runs import CELLS, figures_of, write_grid, write_run

RNG = np.random.default_rng(0)


def test_planned_cells_keep_their_order_and_gaps_have_reasons(tmp_path: Path) -> None:
    write_grid(tmp_path)
    (tmp_path / "base/1/result.json").unlink()
    runs = read_runs(tmp_path, [("flipped", "ppo", 2), *CELLS[:4], ("clean", "sft", 0)])
    assert list(runs.finished) == ["flipped", "clean"] and list(runs.finished["clean"]["dpo"]) == [0, 2]
    assert runs.gaps["flipped", "ppo", 2] == ("the loss is NaN in step <3>", True)
    assert runs.gaps["clean", "sft", 0] == ("not run", False)
    assert "base/1 isn't" in runs.gaps["clean", "dpo", 1].reason
    everything = read_runs(tmp_path)
    assert ("clean", "sft", 0) not in everything.gaps and list(everything.finished["clean"]) == [
        "best-of-n",
        "dpo",
        "ppo",
    ]


def test_an_undefined_figure_is_left_out_and_said(tmp_path: Path) -> None:
    write_run(tmp_path, None, "base", 0, figures_of(RNG), rewards={"d": [1.0] * 40, "e": [None] * 40})
    write_run(tmp_path, "d", "dpo", 0, {**figures_of(RNG), "kl": [None, float("inf")] + [0.0] * 38})
    runs = read_runs(tmp_path)
    assert runs.remarks[-1] == "d/dpo/0: kl is undefined for 2 of 40 prompts and left out."
    assert "kl" not in runs.finished["d"]["dpo"][0].figures and runs.prompts == 40
    assert runs.base_for("d")[0]["reward"].tolist() == [1.0] * 40  # by the data set's own reward model
    assert runs.base_for("e")[0]["reward"].tolist() == runs.base[0].figures["reward"].tolist()


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "can't be read as JSON"), ("[]", "no result of hf-align benchmark"), ('{"label": "dpo"}', "'algorithm'")],
)
def test_broken_files_are_named(tmp_path: Path, content: str, said: str) -> None:
    write_run(tmp_path, None, "base", 0, figures_of(RNG))
    folder = write_run(tmp_path, "d", "dpo", 0, figures_of(RNG))
    (folder / "result.json").write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        read_runs(tmp_path)
    assert "d/dpo/0/result.json" in str(caught.value)


def test_runs_of_another_grid_and_folders_without_runs_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, None, "base", 0, figures_of(RNG))
    with pytest.raises(UserError, match="no finished run"):
        read_runs(tmp_path)
    write_run(tmp_path, "d", "dpo", 0, figures_of(RNG, prompts=20))
    with pytest.raises(UserError, match="20, 40 prompts"):
        read_runs(tmp_path)
