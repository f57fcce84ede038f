"""The migration pages: the new code runs, and the tables cover every argument."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification, TrainingArguments

from hf_align import DPOConfig, PPOConfig, RewardConfig
from tests.docs.pages import DOCS, blocks, prose, run
from tests.tiny import save_tiny, tiny_config, tiny_tokenizer

PAGES = sorted((DOCS / "migration").glob("trl-*.md"))
PPO, PAIRS = DOCS / "migration" / "trl-ppo.md", DOCS / "migration" / "trl-dpo-reward.md"

# The fields that TRL 1.12.0's experimental PPOConfig adds to TrainingArguments, or gives another default.
TRL_PPO = """
    cliprange cliprange_value dataset_num_proc ds3_gather_for_generation gamma kl_coef kl_estimator lam learning_rate
    local_batch_size local_mini_batch_size local_rollout_forward_batch_size micro_batch_size mini_batch_size batch_size
    missing_eos_penalty model_adapter_name num_mini_batches num_ppo_epochs num_sample_generations num_total_batches
    push_to_hub ref_adapter_name response_length reward_model_path sft_model_path stop_token stop_token_id temperature
    total_episodes vf_coef whiten_rewards world_size
""".split()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders named in the pages' scripts."""
    save_tiny(tmp_path / "my-sft-model")
    torch.manual_seed(1)
    LlamaForSequenceClassification(tiny_config(num_labels=1)).save_pretrained(tmp_path / "my-reward-model")
    tiny_tokenizer().save_pretrained(tmp_path / "my-reward-model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_migrated_ppo_script_trains(models: Path):
    names = run(PPO)
    assert (models / "out" / "ppo" / "value_head.safetensors").exists()
    assert (models / "out" / "ppo" / "model.safetensors").exists()
    assert names["trainer"].state.log_history


def test_migrated_pair_scripts_train(models: Path):
    run(PAIRS)
    assert (models / "out" / "dpo" / "adapter_model.safetensors").exists()
    assert (models / "out" / "reward" / "adapter_model.safetensors").exists()


def ppo_options(text: str) -> dict[str, Any]:
    """The keyword arguments of the first PPOConfig(...) in a script."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    config = next(call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "PPOConfig")
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in config.keywords if keyword.arg}


def test_the_migrated_ppo_script_makes_the_same_batches():
    before, after = (ppo_options(text) for language, _, text in list(blocks(PPO))[:2] if language == "python")
    rollout = before["per_device_train_batch_size"] * before["gradient_accumulation_steps"]  # TRL's local_batch_size
    args = PPOConfig(**after)
    assert args.responses_per_rollout == rollout
    assert rollout // args.num_mini_batches == rollout // before["num_mini_batches"]
    assert args.max_steps == before["total_episodes"] // rollout * args.steps_per_rollout
    assert set(before) - set(TRL_PPO) <= {field.name for field in dataclasses.fields(TrainingArguments)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_for_trl_is_python_and_imports_trl(page: Path):
    before = [
        text for language, info, text in blocks(page) if language == "python" and info.startswith('title="before')
    ]
    assert before
    for text in before:
        imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
        assert any(module and module.split(".")[0] == "trl" for module in imported)


def columns(section: str) -> tuple[set[str], set[str]]:
    """The names in the first and the second column of a section's tables."""
    first, second = set(), set()
    for line in section.splitlines():
        if line.startswith("| ") and not line.startswith(("| ---", "| TRL")):
            old, new = line.strip("| ").replace("| |", "||").split("|")[:2]
            first |= set(re.findall(r"`([a-z]\w*)`", old))
            second |= set(re.findall(r"`([a-z]\w*)`", new))
    return first, second


def section(page: Path, title: str) -> str:
    return re.split(r"^## ", prose(page), flags=re.MULTILINE)[
        [part.split("\n")[0] for part in re.split(r"^## ", prose(page), flags=re.MULTILINE)].index(title)
    ]


def own_fields(config: type, base: type = TrainingArguments) -> set[str]:
    """The fields that a config adds to those of `base`."""
    return {field.name for field in dataclasses.fields(config)} - {field.name for field in dataclasses.fields(base)}


def test_every_option_of_trls_ppo_has_its_row():
    old, new = columns(section(PPO, "The options"))
    assert set(TRL_PPO) <= old
    known = {field.name for field in dataclasses.fields(PPOConfig)} | {"model", "reward"}
    assert new <= known


@pytest.mark.parametrize(("title", "ours"), [("DPO", DPOConfig), ("Reward models", RewardConfig)])
def test_every_option_of_trls_pair_trainers_has_its_row(title: str, ours: type):
    from trl.trainer import dpo_config, reward_config

    theirs = {"DPO": dpo_config.DPOConfig, "Reward models": reward_config.RewardConfig}[title]
    old, new = columns(section(PAIRS, title))
    assert own_fields(theirs) <= old
    assert new <= {field.name for field in dataclasses.fields(ours)}
