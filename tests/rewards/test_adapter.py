"""A reward adapter on the policy's base gives the reward model's scores and leaves the policy unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.value import PolicyWithValueHead
from hf_align.rewards import AdapterReward, as_reward
from tests.tiny import save_tiny

PROMPTS = [[{"role": "user", "content": text}] for text in ("Write a tweet.", "Review this.", "Hi")]
RESPONSES = ["So happy!", "Dull.", "Hello there."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def reward_model(folder: str, config: RewardModelConfig | None = None) -> RewardModel:
    torch.manual_seed(2)
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    return RewardModel.from_backbone(folder, config, lora=lora)


def policy(folder: str) -> PolicyWithValueHead:
    torch.manual_seed(3)
    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False)
    return PolicyWithValueHead(load_policy(folder, lora=lora), value_model="adapter").train()


CONFIGS = {
    "plain": None,
    "mlp": RewardModelConfig(head="mlp"),
    "mean": RewardModelConfig(pooling="mean"),
    "attention and tasks": RewardModelConfig(head="attention", tasks={"tone": 3}, projection=True),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("saved", [True, False])
def test_scores_are_those_of_the_reward_model_alone(
    folder: str, tmp_path: Path, config: RewardModelConfig | None, saved: bool
):
    alone = reward_model(folder, config)
    expected = alone.score(PROMPTS, RESPONSES)
    if saved:
        alone.save_pretrained(tmp_path)
    reward = AdapterReward(policy(folder), str(tmp_path) if saved else alone)
    assert reward.score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-4)
    cut = alone.score(PROMPTS, RESPONSES, finished=[False] * 3)
    assert reward.score(PROMPTS, RESPONSES, finished=[False] * 3) == pytest.approx(cut, abs=1e-4)
    assert max(abs(a - b) for a, b in zip(cut, expected, strict=True)) > 1e-3
    assert max(expected) - min(expected) > 1e-3


def test_the_policy_stays_as_it_is(folder: str, tmp_path: Path):
    model = policy(folder)
    ids = torch.tensor([[1, 2, 3]])

    def state() -> tuple:
        with torch.no_grad():
            logits = model.model(ids).logits
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        return logits, trained, [m.training for m in model.modules() if not isinstance(m, nn.ModuleDict)][:3]

    before = state()
    reward = AdapterReward(model, reward_model(folder))
    reward.score(PROMPTS, RESPONSES)
    after = state()
    torch.testing.assert_close(after[0], before[0], atol=0, rtol=0)
    assert after[1:] == before[1:]
    assert model.model.active_adapters == ["default"]
    assert not any(p.requires_grad for name, p in reward.named_parameters() if ".reward." in name or "head" in name)
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["value"]
    saved = load_policy(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(saved(ids).logits, before[0], atol=1e-5, rtol=0)


def test_a_path_shares_the_policys_base_if_it_can(folder: str, tmp_path: Path):
    reward_model(folder).save_pretrained(tmp_path / "adapter")
    expected = reward_model(folder).score(PROMPTS, RESPONSES)
    model = policy(folder)
    shared = as_reward([str(tmp_path / "adapter"), str(tmp_path / "adapter")], policy=model)
    assert [type(part.source) for part in shared.members] == [AdapterReward, AdapterReward]
    assert (shared(PROMPTS, RESPONSES) / 2).tolist() == pytest.approx(expected, abs=1e-4)
    other = load_policy(save_tiny(tmp_path / "other", seed=5), lora=True)
    for own in (load_policy(folder), other):
        assert type(as_reward(str(tmp_path / "adapter"), policy=own).members[0].source) is RewardModel


def test_a_base_is_shared_by_its_weights_whatever_it_is_called(
    folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    alone = reward_model(folder)
    alone.save_pretrained(tmp_path / "adapter")
    expected = pytest.approx(alone.score(PROMPTS, RESPONSES), abs=1e-4)
    merged = cast(Any, load_policy(folder, lora=LoraConfig(init_lora_weights=False))).merge_and_unload()
    elsewhere = save_tiny(tmp_path / "copy")
    for base, shares in ((merged, False), (load_policy(elsewhere), True)):
        policy = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM"))
        reward = as_reward(str(tmp_path / "adapter"), policy=policy)
        assert isinstance(reward.members[0].source, AdapterReward) == shares
        assert reward(PROMPTS, RESPONSES).tolist() == expected
        if not shares:
            for source in (alone, tmp_path / "adapter"):
                with pytest.raises(UserError, match="doesn't fit the policy's base: it was trained on another, layers"):
                    AdapterReward(policy, source)
    (tmp_path / "adapter" / "base_fingerprint.json").unlink()  # as adapters from elsewhere: the name decides
    with caplog.at_level("WARNING"):
        assert isinstance(
            as_reward(str(tmp_path / "adapter"), policy=load_policy(folder, lora=True)).members[0].source, AdapterReward
        )
    assert sum("is not checked" in record.message for record in caplog.records) == 1


def test_an_adapter_whose_start_rewrote_the_base_shares_none(folder: str):
    rewritten = load_policy(folder, lora=LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa"))
    with pytest.raises(UserError, match="has rewritten what it sits on"):
        AdapterReward(rewritten, reward_model(folder))


def test_what_does_not_fit_is_named(folder: str, tmp_path: Path):
    with pytest.raises(UserError, match="policy with LoRA"):
        AdapterReward(load_policy(folder), reward_model(folder))
    with pytest.raises(UserError, match="no LoRA adapter"):
        AdapterReward(policy(folder), RewardModel.from_backbone(folder))
    larger = save_tiny(tmp_path / "larger", hidden_size=64)
    model = policy(folder)
    with pytest.raises(UserError, match="doesn't fit"):
        AdapterReward(model, reward_model(larger))
    assert set(model.peft_config) == {"default", "value"}
    load_policy(folder, lora=True).save_pretrained(str(tmp_path / "policy"))
    with pytest.raises(UserError, match="no reward head"):
        AdapterReward(model, tmp_path / "policy")
