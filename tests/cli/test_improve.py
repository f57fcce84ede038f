"""`hf-align improve`: a dry run, a run with its files, and mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_align.cli.main import main
from tests.experiments.improvement.runs import SMALL, write_inputs


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(4, 4)


def improve(model: str, *flags: str, **values: Any) -> int:
    Path("recipe.yaml").write_text(yaml.safe_dump({"model": model, **SMALL, **values}))
    return main(["improve", "--config", "recipe.yaml", *flags])


def test_a_run_prints_its_rounds_and_the_same_command_again_only_repeats_them(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(tiny_model_dir, "--dry-run") == 0
    assert "fall that is noticed" in capsys.readouterr().out and not Path("out").exists()
    assert improve(tiny_model_dir, "--rounds", "1", "--json", "figures.json") == 0
    said = capsys.readouterr().out
    assert "over the best" in said and "report: out/report.html" in said
    figures = json.loads(Path("figures.json").read_text())
    assert figures == json.loads(Path("out/rounds.json").read_text()) and len(figures["rounds"]) == 1
    weights = Path("out/round-1/policy/adapter_model.safetensors").stat().st_mtime_ns
    assert improve(tiny_model_dir, "--rounds", "1", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == figures
    assert Path("out/round-1/policy/adapter_model.safetensors").stat().st_mtime_ns == weights


def test_a_mistake_is_one_line_with_its_place(tiny_model_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert improve(tiny_model_dir, "--anchor_share", "2") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--anchor_share" in error
