"""The command `hf-align hybrid`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_align.cli.main import main
from hf_align.errors import UserError
from hf_align.tracking import read_record
from tests.experiments.test_hybrid import RECIPE, SCORE
from tests.trainers.hybrid.run import save_toy

ROOT = Path(__file__).parents[2]
LONG = RECIPE.replace("max_steps: 2", "max_steps: 2000").replace("learning_rate: 1e-3", "learning_rate: 1e-5")


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    save_toy(Path("toy"))
    Path("score.py").write_text(SCORE)
    rows = [{"prompt": "a", "chosen": " b", "rejected": " c"}, {"prompt": "b", "chosen": " d", "rejected": " a"}]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("recipe.yaml").write_text(RECIPE)


def run(*flags: str) -> int:
    return main(["hybrid", "--config", "recipe.yaml", *flags])


def test_a_dry_run_shows_what_each_stage_starts_from(capsys: pytest.CaptureFixture[str]):
    assert run("--dry-run") == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        *("stage 1 (dpo)", "stage 2 (ppo)", "stage 3 (ipo)", "trains an adapter", "trains the adapter of stage 2"),
        *("reference the start", "reference the start (without the adapter)", "reference the policy as handed over"),
        *("optimizer fresh, with its schedule", "seed 5"),
    ):
        assert line in lines
    assert shown.count("memory, about") == 3 and "Nothing was trained" in shown and not Path("out").exists()


def test_a_flag_that_every_stage_overrides_is_refused(capsys: pytest.CaptureFixture[str]):
    stages = "[{algorithm: dpo, beta: 0.2}, {algorithm: ipo, beta: 0.2}]"
    assert run("--stages", stages, "--beta", "0.3", "--dry-run") == 2
    assert (
        "--beta is for stages that don't give their own, and all do; write --stages.1.beta\n" in capsys.readouterr()[1]
    )
    assert run("--stages", stages.replace(", beta: 0.2}]", "}]"), "--beta", "0.3", "--print-config") == 0
    shown = capsys.readouterr().out
    assert "beta: 0.2" in shown and "beta: 0.3" in shown


def test_it_trains_and_is_not_begun_twice(capsys: pytest.CaptureFixture[str]):
    assert run("--stages", "[dpo, ipo]") == 0
    assert "saved in out" in capsys.readouterr().out
    assert json.loads(Path("out/hybrid.json").read_text())["finished"] and Path("out/adapter_config.json").exists()
    assert run("--stages", "[dpo, ipo]") == 2
    assert "resume it with resume_from_checkpoint=True (--resume_from_checkpoint true)" in capsys.readouterr().err
    assert run("--stages", "[dpo, ipo]", "--resume_from_checkpoint", "true") == 0
    assert "the run is finished" in capsys.readouterr().out
    assert run("--stages", "[dpo, dpo]", "--resume_from_checkpoint", "true") == 2
    assert "has the stages dpo, ipo, not dpo, dpo" in capsys.readouterr().err


def has_logged(folder: str) -> bool:
    """Whether a step of its run was logged."""
    try:
        return any(run.metrics("loss") for run in read_record(folder))
    except UserError:  # there is no record yet
        return False


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on():
    Path("recipe.yaml").write_text(LONG)
    code = "import sys; from hf_align.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "hybrid", "--config", "recipe.yaml", "--stages.1.logging_steps", "1"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    while started.poll() is None and not has_logged("out"):
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 130, errors
    assert "--resume_from_checkpoint true" in errors
    assert list(Path("out/stage-1-dpo").glob("checkpoint-*")), errors
