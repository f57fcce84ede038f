"""Adapter configs are saved alike, whatever the order of a set in this process."""

from __future__ import annotations

import json
from pathlib import Path

from peft import LoraConfig

from hf_align import RewardEnsemble, RewardModel
from hf_align.models.loading import load_policy
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.value import PolicyWithValueHead


def targets(path: Path) -> list[str]:
    return json.loads((path / "adapter_config.json").read_text())["target_modules"]


def test_names_of_layers_are_sorted_in_every_adapter_that_is_saved(tiny_model_dir: str, tmp_path: Path) -> None:
    lora = LoraConfig(r=1, target_modules="all-linear")
    policy = PolicyWithValueHead(load_policy(tiny_model_dir, lora=lora), value_model="adapter")
    policy.save_pretrained(tmp_path / "policy")
    members = [RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(), lora=lora) for _ in range(2)]
    RewardEnsemble(members).save_pretrained(tmp_path / "ensemble")  # members that share their base
    folders = [path.parent for path in sorted(tmp_path.rglob("adapter_config.json"))]
    assert len(folders) == 4 and "value" in str(folders)
    for folder in folders:
        assert len(targets(folder)) >= 7 and targets(folder) == sorted(targets(folder)), folder
