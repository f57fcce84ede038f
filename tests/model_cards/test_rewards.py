"""The rewards that a policy was trained on, as its card records them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from peft import LoraConfig

from hf_align import RewardModel, load_policy, load_reward_model
from hf_align.model_cards.collect import collect_facts
from hf_align.model_cards.rewards import head_keys
from hf_align.models.merging import merge_adapter
from hf_align.rewards import AdapterReward
from tests.trainers.ppo.test_trainer import ppo


def test_a_reward_model_has_one_key_in_every_form(tiny_model_dir: str, tmp_path: Path):
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = RewardModel.from_backbone(tiny_model_dir, lora=lora)
    model.save_pretrained(tmp_path / "adapter")
    merge_adapter(str(tmp_path / "adapter"), str(tmp_path / "merged"))
    keys = head_keys(model)
    assert len(keys) == 1
    assert head_keys(load_reward_model(str(tmp_path / "adapter"))) == keys
    assert head_keys(load_reward_model(str(tmp_path / "merged"), dtype=torch.bfloat16)) == keys
    assert head_keys(AdapterReward(load_policy(tiny_model_dir, lora=True), str(tmp_path / "adapter"))) == keys
    torch.manual_seed(7)
    other = RewardModel.from_backbone(tiny_model_dir)
    assert head_keys(other) != keys and head_keys(len) == []
    assert head_keys(SimpleNamespace(members=[model, other])) == [*keys, *head_keys(other)]


def test_a_card_of_ppo_names_the_reward(tmp_path: Path):
    def cheerful(prompts: list[str], responses: list[str]) -> list[float]:
        return [1.0] * len(responses)

    facts = collect_facts(ppo(tmp_path, {"reward": cheerful}))
    assert facts.rewards == {"cheerful": []} and facts.run["Reward"] == "cheerful"
