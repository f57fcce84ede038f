"""The short recipes of preferences from models run on the real model, in one command each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hf_align.cli.main import main
from hf_align.models.reward import RewardModel

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def folder(base_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the recipes are run: the quickstart's base and the repository's recipes, by their relative names."""
    (tmp_path / "hf-align-quickstart").mkdir()
    (tmp_path / "hf-align-quickstart" / "base").symlink_to(base_dir)
    shutil.copytree(RECIPES, tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(recipe: str) -> list[list[str]]:
    """Arguments of the commands in a recipe's header, without the quickstart's."""
    lines = (RECIPES / recipe).read_text(encoding="utf-8").splitlines()
    given = [line.split()[2:] for line in lines if line.startswith("#   hf-align ")]
    return [arguments for arguments in given if arguments[0] != "quickstart"]


@pytest.mark.slow
def test_a_constitution_gives_both_kinds_of_rows_that_models_are_trained_on(folder: Path):
    made, *trained = commands("smoke-constitution.yaml")
    assert main(made) == 0
    out = folder / "out" / "smoke-constitution"
    rows = [json.loads(line) for line in (out / "sft.jsonl").read_text().splitlines()]
    pairs = [json.loads(line) for line in (out / "preferences.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and all(row["completion"][0]["content"].strip() for row in rows)
    assert pairs and all(0 <= pair["preference"] <= 1 and pair["preference"] != 0.5 for pair in pairs)
    assert [arguments[0] for arguments in trained] == ["sft", "reward", "dpo"]
    for arguments in trained:
        assert main(arguments) == 0
        adapter = load_file(folder / "out" / arguments[0] / "adapter_model.safetensors")
        moved = torch.cat([weight.flatten() for name, weight in adapter.items() if "lora_B" in name])
        assert moved.isfinite().all() and moved.any(), "zero before training"


@pytest.mark.slow
def test_two_rounds_of_self_improvement_end_with_a_policy(folder: Path):
    torch.manual_seed(0)  # an untrained head: its scores have to differ, not to be right
    RewardModel.from_backbone(folder / "hf-align-quickstart" / "base", lora=True).save_pretrained(
        folder / "hf-align-quickstart" / "reward"
    )
    (command,) = commands("smoke-improve.yaml")
    assert main(command) == 0
    out = folder / "out" / "smoke-improve"
    rounds = json.loads((out / "rounds.json").read_text())
    trained = [entry["trained"]["rows"] for entry in rounds["rounds"]]
    assert len(trained) == 2 and min(trained) > 24, "of 48 prompts"
    assert all((out / f"round-{number}" / "policy" / "adapter_model.safetensors").exists() for number in (1, 2))
    assert main(command) == 0, "the same command again does nothing"
    assert json.loads((out / "rounds.json").read_text()) == rounds


@pytest.mark.slow
def test_online_dpo_trains_a_policy_that_loads(folder: Path):
    (command,) = commands("smoke-online-dpo.yaml")
    assert main(command) == 0
    out = folder / "out" / "smoke-online-dpo"
    state = json.loads((next(out.glob("checkpoint-*")) / "trainer_state.json").read_text())
    assert any("objective/kl" in entry for entry in state["log_history"])
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() > 1e8


@pytest.mark.slow
def test_a_hybrid_trains_a_policy_that_loads(folder: Path):
    command = ["hybrid", "--config", "recipes/smoke-hybrid.yaml"]
    assert main(command) == 0
    out = folder / "out" / "smoke-hybrid"
    state = json.loads((out / "hybrid.json").read_text())
    assert [each["status"] for each in state["stages"]] == ["done"] * 3 and state["finished"]
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() > 1e8
    assert main([*command, "--resume_from_checkpoint", "true"]) == 0, "a finished run stays as it is"
