"""Reward models and language models are distinguished without loading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, TaskType

from hf_align import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer
from hf_align.errors import UserError
from hf_align.models.kinds import check_head, is_classifier
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from tests.tiny import save_tiny
from tests.trainers.pairs import options, text_pairs


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """A language model, a reward model, and an adapter for each."""
    base = save_tiny(tmp_path / "language")
    RewardModel.from_backbone(base).save_pretrained(tmp_path / "reward")
    RewardModel.from_backbone(base, lora=True).save_pretrained(tmp_path / "reward-adapter")
    lora = LoraConfig(r=2, target_modules="all-linear", task_type=TaskType.CAUSAL_LM)
    load_policy(base, lora=lora).save_pretrained(str(tmp_path / "adapter"))
    return {name: str(tmp_path / name) for name in ("language", "reward", "reward-adapter", "adapter")}


def test_what_is_a_classifier(folders: dict[str, str], tmp_path: Path):
    actual = {name: is_classifier(path) for name, path in folders.items()}
    assert actual == {"language": False, "reward": True, "reward-adapter": True, "adapter": False}
    assert is_classifier(RewardModel.from_pretrained(folders["reward-adapter"]))
    assert not is_classifier(load_policy(folders["adapter"]))
    assert is_classifier(load_policy(folders["reward"])), "it has a new LM head"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert is_classifier(tmp_path) is None
    (tmp_path / "config.json").write_text("broken")
    assert is_classifier(tmp_path) is None and is_classifier("./nowhere") is None


def test_heads_that_were_never_trained(folders: dict[str, str], tmp_path: Path):
    for name in ("language", "adapter"):
        with pytest.raises(UserError, match=f"{name} has no reward head and would score at random; train it with Rew"):
            check_head(folders[name])
    RewardModel.from_backbone(folders["language"], RewardModelConfig(head="mlp")).save_pretrained(tmp_path / "mlp")
    for path in (folders["reward"], folders["reward-adapter"], str(tmp_path / "mlp")):
        check_head(path)


@pytest.mark.parametrize("name", ["reward", "reward-adapter", "object"])
@pytest.mark.parametrize("role", ["model", "ref_model"])
def test_a_reward_model_is_no_policy(folders: dict[str, str], tmp_path: Path, name: str, role: str):
    wrong = RewardModel.from_pretrained(folders["reward"]) if name == "object" else folders[name]
    given: dict[str, Any] = {"model": folders["language"], "train_dataset": text_pairs(2), role: wrong}
    with pytest.raises(
        UserError, match=rf"{role}: .* is a reward model \(sequence classification\), which can't write"
    ):
        DPOTrainer(**given, args=DPOConfig(**options(tmp_path / "out")))
    with pytest.raises(UserError, match=rf"{role}: .* is a reward model"):
        PPOTrainer(**given, args=PPOConfig(**options(tmp_path / "out")), reward=lambda prompts, responses: [])
