"""Reward models on a tiny base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from hf_align import RewardEnsemble, RewardModel

ROWS = [{"prompt": f"Prompt {n}", "chosen": f"Warm, {n}.", "rejected": f"Dull, {n * n}."} for n in range(8)]


@pytest.fixture(scope="package")
def rewards(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardEnsemble, Path]:
    """Two normalised adapters on one base, and a folder with the ensemble ("both") and its first member ("0")."""
    folder, members = tmp_path_factory.mktemp("rewards"), []
    for number in range(2):
        torch.manual_seed(number)
        lora = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        members.append(RewardModel.from_backbone(tiny_model_dir, lora=lora))
    ensemble = RewardEnsemble(members)
    ensemble.normalize(ROWS, "eight pairs")
    ensemble.save_pretrained(folder / "both")
    members[0].save_pretrained(folder / "0")
    return ensemble, folder
