"""`hf-align benchmark --report-only`: the page of what is finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from hf_align.cli.main import main
from hf_align.experiments.benchmark.prepare import prepare_benchmark
from hf_align.experiments.recipe import read_recipe
from tests.evaluation.grid.made_runs import figures_of, write_run
from tests.experiments.benchmark.grids import SMALL, write_inputs


def test_report_only(tiny_model_dir: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs()
    grid = {"model": tiny_model_dir, **SMALL, "algorithms": {"dpo": {}, "ipo": {}}}
    Path("grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    command = ["benchmark", "--config", "grid.yaml", "--report-only"]
    assert main(command) == 2 and "out has no finished run" in capsys.readouterr().err
    rng = np.random.default_rng(0)
    write_run(Path("out"), None, "base", 0, figures_of(rng, prompts=5))
    write_run(Path("out"), "clean", "dpo", 0, figures_of(rng, 0.5, prompts=5))
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "The page: out/report.html" in said and "Runs without figures: 1, of which 0 failed." in said
    prepare_benchmark(read_recipe("grid.yaml", [])).jobs[-1].begin(Path("out"))
    assert main([*command, "--budget.passes", "1"]) == 2
    assert "out/clean/ipo/0 was begun with budget.passes 2, and the grid has 1 now" in capsys.readouterr().err
    assert "clean / ipo" in Path("out/report.html").read_text() and "not run" in Path("out/table.md").read_text()
