"""`hf-align push` in a process of its own, with HF_ENDPOINT pointing at the stand-in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.hub.conftest import environment, read_files
from tests.hub.models import trained
from tests.hub.stand_in import StandIn


def push(hub: StandIn, home: Path, *arguments: str, token: str | None = None) -> tuple[int, str, str]:
    settings = environment(hub, home) if token is None else environment(hub, home, token)
    command = [sys.executable, "-m", "hf_align.cli", "push", *arguments]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=home.parent)
    return done.returncode, done.stdout, done.stderr


def test_a_model_is_pushed_and_a_failure_is_one_line(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    trained("reward", base, tmp_path / "reward")
    before = read_files(tmp_path / "reward")
    home = tmp_path / "home"

    status, _, errors = push(hub, home, "reward", "mine", "--base-model", base_on_hub, token="hf_wrong")
    assert status == 2
    assert errors.splitlines()[-1].startswith("hf-align: error: ") and "hf auth login" in errors
    assert "Traceback" not in errors

    status, _, errors = push(hub, home, "reward", "mine")
    assert status == 2 and "--base-model ORG/NAME" in errors.splitlines()[-1] and "Traceback" not in errors

    arguments = ("reward", "mine", "--merge", "--private", "--license", "mit", "--message", "First try")
    hub.fail(r"POST .*/commit/", status=500)
    status, _, errors = push(hub, home, *arguments)
    assert status == 2 and "the Hub answered 500" in errors.splitlines()[-1]
    assert hub.repositories["anna/mine"].messages == []
    hub.failures.clear()
    status, output, errors = push(hub, home, *arguments)
    assert (status, errors) == (0, "")
    assert output.splitlines()[-1] == f"pushed to {hub.url}/anna/mine"
    repository = hub.repositories["anna/mine"]
    assert repository.private and repository.messages == ["First try"]
    assert "model.safetensors" in repository.files and b"license: mit" in repository.files["README.md"]
    assert read_files(tmp_path / "reward") == before
