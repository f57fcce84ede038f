"""A grid whose runs are processes: killed, interrupted, side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from tests.experiments.benchmark.grids import SMALL, result_of, write_inputs

pytestmark = pytest.mark.slow
WAIT = 300


@pytest.fixture
def command(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    write_inputs()
    options = {**SMALL["options"], "save_strategy": "steps", "save_steps": 1}
    grid = {**SMALL, "model": tiny_model_dir, "options": options, "budget": {"samples": 48, "passes": 2}}
    grid["algorithms"] = {"dpo": {}, "rloo": {"algorithm": "ppo", "baseline": "group"}}
    Path("grid.yaml").write_text(yaml.safe_dump(grid))
    return [sys.executable, "-m", "hf_align.cli", "benchmark", "--config", "grid.yaml", "--workers", "2"]


def start(command: list[str], out: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, "--output_dir", out], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)


def checkpoints() -> set[Path]:
    return set(Path("out").glob("clean/*/0/training/checkpoint-*"))


def test_killed_and_interrupted_it_goes_on_and_leaves_no_process(command: list[str]):
    whole = start(command, "whole")
    assert whole.wait(WAIT) == 0, whole.communicate()[0]
    process = start(command, "out")
    wait_for(checkpoints, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert children and not psutil.wait_procs(children, timeout=20)[1]
    left = checkpoints()
    process = start(command, "out")
    wait_for(lambda: checkpoints() - left, process)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=WAIT)[0]
    assert process.returncode == 130
    assert "the same command goes on: hf-align benchmark --config grid.yaml" in told.splitlines()[-1]
    assert not list(Path("out").rglob("failed.json"))
    process = start(command, "out")
    assert process.wait(WAIT) == 0, process.communicate()[0]
    for label in ("dpo", "rloo"):
        for name in ("figures", "responses", "steps"):
            assert result_of(f"clean/{label}/0")[name] == result_of(f"clean/{label}/0", "whole")[name], (label, name)


def test_a_run_that_is_ended_by_a_signal_fails_alone(command: list[str]):
    process = start(command, "out")
    wait_for(lambda: any(Path("out/clean/dpo/0/training").glob("checkpoint-*")), process)
    children = psutil.Process(process.pid).children()
    [one] = [each for each in children if "clean/dpo/0" in each.cmdline()]
    one.kill()
    told = process.communicate(timeout=WAIT)[0]
    assert process.returncode == 1
    reason = json.loads(Path("out/clean/dpo/0/failed.json").read_text())["reason"]
    assert reason == "its process was ended by SIGKILL, perhaps for lack of memory; see log.txt"
    assert f"clean/dpo/0: {reason}" in told
    assert result_of("clean/rloo/0")["steps"] == 24
