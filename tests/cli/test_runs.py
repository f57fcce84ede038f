"""`hf-align runs`: lists, compares and draws what is recorded below folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hf_align.cli.main import main
from hf_align.tracking.schema import FILE
from tests.tracking.test_compare import made


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    made(tmp_path / "one", "dpo", {"beta": 0.1}, eval_loss=[0.5, 0.4])
    made(tmp_path / "sub" / "two", "dpo", {"beta": 0.5}, eval_loss=[0.3, float("nan")])
    made(tmp_path / "three", "reward", eval_accuracy=[0.9])
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["runs", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_runs_are_listed_compared_and_drawn(runs: Path, capsys: pytest.CaptureFixture[str]):
    code, out, _ = shown(capsys, str(runs))
    assert code == 0 and [line.split()[0] for line in out.splitlines() if line] == ["run", "one", "sub/two", "three"]
    assert "eval_loss 0.4 (step 2)" in out and "eval_accuracy 0.9 (step 1)" in out
    code, out, _ = shown(capsys, str(runs), "--algorithm", "dpo", "--compare", "--report", str(runs / "page.html"))
    assert code == 0 and "three" not in out and ["beta", "0.1", "0.5"] in [line.split() for line in out.splitlines()]
    assert "run-1" in (runs / "page.html").read_text()
    code, out, err = shown(capsys, str(runs / "sub"), str(runs / "three"), "--json")
    first, second = json.loads(out)
    assert (code, err, first["algorithm"], second["algorithm"]) == (0, "", "dpo", "reward")
    assert first["result"] == {"metric": "eval_loss", "shown": "0.3 (step 1)", "value": 0.3, "step": 1, "best": True}
    assert first["config"] == {"beta": 0.5} and first["data"]["train"]["fingerprint"] == "a"
    assert shown(capsys, str(runs), "--metric", "eval_accuracy")[1].count("(step") == 1


def test_bad_input_is_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (["nowhere"], "nowhere is no folder"),
        ([str(tmp_path / "empty")], f"no run is recorded in {tmp_path / 'empty'}"),
        ([str(runs), "--algorithm", "ipo"], "no run of ipo is recorded in"),
        ([str(runs), "--metric", "eval_los"], "no run has eval_los; there is eval_loss, eval_accuracy"),
        ([str(runs), "--report", str(runs / "one" / FILE / "x.html")], "can't be written"),
    ):
        code, out, err = shown(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1) and said in err
    (runs / "one" / FILE).write_text("x" * 1000)
    code, out, _ = shown(capsys, str(runs))
    assert code == 0 and "left out: " in out and "is no record of a run" in out and "three" in out
    code, _, err = shown(capsys, str(runs / "one"))
    assert code == 2 and "is no record of a run" in err


def test_it_starts_without_the_model_libraries():
    code = "import sys, hf_align.cli.commands.runs; print('torch' in sys.modules, 'datasets' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]
