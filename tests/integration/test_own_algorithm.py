"""The package of docs/how-to/own-algorithm.md, built and installed: its algorithm works wherever ours do."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow  # builds and installs a package, and calls ten commands

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "own-algorithm.md"
PAIRS = [{"prompt": f"p{number}", "chosen": " good", "rejected": " bad!"} for number in range(4)]
SCRIPT = """
import contextlib, io, json, sys
from hf_align.cli.main import main

def call(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}

recipe = ("orpo", "--config", "orpo.yaml", "--model", "hf-align-quickstart/base", "--train_dataset", "pairs.jsonl")
calls = {
    "algorithms": call("algorithms", "--json"),
    "help": call("orpo", "--help"),
    "wrong": call(*recipe, "--odds_coeff", "1"),
    "range": call(*recipe, "--odds_coef", "-1"),
    "dry": call(*recipe, "--dry-run"),
    "train": call(*recipe, "--odds_coef", "0.2"),
    "again": call(*recipe),
    "resume": call(*recipe, "--odds_coef", "0.2", "--resume_from_checkpoint", "true", "--max_steps", "3"),
    "runs": call("runs", "out", "--json"),
    "completion": call("completion", "bash"),
}
print(json.dumps(calls))
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package, installed by pip into a folder of its own."""
    source, target = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("installed")
    (source / "hf_align_orpo").mkdir()
    [project] = blocks("toml")
    entry, trainer = blocks("python")
    (source / "pyproject.toml").write_text(project)
    (source / "hf_align_orpo" / "__init__.py").write_text(entry)
    (source / "hf_align_orpo" / "trainer.py").write_text(trainer)
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--quiet", "--target", target)
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True)
    return target


@pytest.fixture(scope="module")
def called(package: Path, tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of the commands, in a process that has the package on its path."""
    folder = tmp_path_factory.mktemp("used")
    (folder / "hf-align-quickstart").mkdir()
    (folder / "hf-align-quickstart" / "base").symlink_to(tiny_model_dir)
    for name, rows in (("pairs", PAIRS), ("held_out", PAIRS[:1])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "orpo.yaml").write_text(blocks("yaml")[0] + "save_steps: 1\nreport_to: none\n")
    path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", SCRIPT]
    ran = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return {**json.loads(ran.stdout), "folder": folder}


def test_it_is_listed_with_what_it_reads_and_needs(called: dict[str, Any]):
    [orpo] = [each for each in json.loads(called["algorithms"]["out"]) if each["name"] == "orpo"]
    assert (orpo["columns"], orpo["needs"], orpo["trains"]) == (["prompt", "chosen", "rejected"], [], "policy")


def test_its_command_helps_and_refuses(called: dict[str, Any]):
    assert called["help"]["code"] == 0 and "hf_align_orpo:ORPO" in called["help"]["out"]
    assert called["wrong"]["code"] == 2 and "did you mean odds_coef?" in called["wrong"]["err"]
    assert called["range"]["code"] == 2 and "odds_coef" in called["range"]["err"]
    assert called["dry"]["code"] == 0 and "Nothing was trained" in called["dry"]["out"]
    assert called["again"]["code"] == 2 and "already holds a training run" in called["again"]["err"]


def test_it_trains_saves_and_is_named_in_the_card(called: dict[str, Any]):
    assert called["train"]["code"] == called["resume"]["code"] == 0, called["train"]["err"]
    out = called["folder"] / "out" / "orpo"
    assert (out / "adapter_model.safetensors").is_file()
    card = (out / "README.md").read_text()
    assert "Trained with `orpo`" in card and "ORPO, without a reference" in card
    assert "Direct preference" not in card and "- orpo" in card and "- dpo" not in card


def test_its_run_is_recorded_and_resumed(called: dict[str, Any]):
    [run] = json.loads(called["runs"]["out"])
    assert (run["algorithm"], run["status"], run["steps"]) == ("orpo", "finished", 3)
    assert [session["from_step"] for session in run["sessions"]] == [0, 2]
    assert run["config"]["odds_coef"] == 0.2 and run["config"]["train_dataset"] == "pairs.jsonl"
    assert {"loss", "rewards/margins", "eval_rewards/margins"} <= set(run["metrics"])
    assert run["checkpoints"][-1]["parts"] == {"policy": "out/orpo"} and run["data"]["train"]["rows"] == len(PAIRS)


def test_the_shell_completes_its_options(called: dict[str, Any]):
    words = called["completion"]["out"]
    assert called["completion"]["code"] == 0 and "--odds_coef" in words


def test_its_loss_is_orpos(package: Path, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Against the paper's odds, p / (1 - p) of the mean log-prob of a token."""
    monkeypatch.syspath_prepend(package)
    from hf_align_orpo.trainer import ORPOConfig, ORPOTrainer  # type: ignore[import-not-found]

    args = ORPOConfig(str(tmp_path), max_steps=1, report_to=[], bf16=False, disable_tqdm=True, odds_coef=0.3)
    trainer = ORPOTrainer(tiny_model_dir, args=args, train_dataset=PAIRS, eval_dataset=PAIRS[:1])
    measured = trainer.evaluate()
    row = trainer.eval_dataset[0]
    model, nats = trainer.model.model, []
    for response in row["response_ids"]:
        ids = torch.tensor([row["prompt_ids"] + response])
        logps = (
            model(input_ids=ids).logits.detach()[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[-len(response) :]
        )
        nats.append(float(logps.mean()))
    chosen, rejected = (math.exp(each) / (1 - math.exp(each)) for each in nats)
    ratio = math.log(chosen / rejected)
    assert measured["eval_loss"] == pytest.approx(-nats[0] + 0.3 * math.log1p(math.exp(-ratio)), rel=1e-4)
    assert measured["eval_rewards/margins"] == pytest.approx(ratio, rel=1e-4)
