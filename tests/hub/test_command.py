"""`hf-align push`, in this process and in a separate one with HF_ENDPOINT at the stand-in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hf_align.cli.main import main
from tests.hub.conftest import environment, read_files
from tests.hub.models import trained
from tests.hub.stand_in import StandIn


@pytest.mark.parametrize("separate", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_is_pushed_and_a_failure_is_one_line(
    separate: bool,
    hub: StandIn,
    base: Path,
    base_on_hub: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    trained("reward", base, tmp_path / "reward")
    before = read_files(tmp_path / "reward")
    monkeypatch.chdir(tmp_path)

    def error_of(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["push", *arguments]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("hf-align: error: ")
        return line

    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_wrong")
        assert "hf auth login" in error_of("reward", "mine", "--base-model", base_on_hub)
    assert "--base-model ORG/NAME" in error_of("reward", "mine")
    arguments = ("reward", "mine", "--merge", "--private", "--license", "mit", "--message", "First try")
    hub.fail(r"POST .*/commit/", status=500)
    assert "the Hub answered 500" in error_of(*arguments)
    assert hub.repositories["anna/mine"].messages == []
    hub.failures.clear()

    if separate:
        command = [sys.executable, "-m", "hf_align.cli", "push", *arguments]
        settings = environment(hub, tmp_path / "home")
        done = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        shown = done.stdout
    else:
        capsys.readouterr()
        assert main(["push", *arguments]) == 0
        shown, error = capsys.readouterr()
        assert error == ""
    assert shown.splitlines()[-1] == f"pushed to {hub.url}/anna/mine"
    repository = hub.repositories["anna/mine"]
    assert repository.private and repository.messages == ["First try"]
    assert "model.safetensors" in repository.files and b"license: mit" in repository.files["README.md"]
    assert read_files(tmp_path / "reward") == before
