"""A reward head goes on any decoder, and what only hf_align loads says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer, ModernBertDecoderForSequenceClassification

from hf_align import PPOConfig, PPOTrainer, RewardConfig, RewardTrainer, load_reward_model
from hf_align.errors import UserError
from hf_align.model_cards.files import describe_folder
from hf_align.models.classifier import is_ours
from hf_align.models.reward import RewardModel
from hf_align.models.wrapper import unwrapped
from tests.families import FAMILIES
from tests.tiny import tiny_tokenizer
from tests.trainers.pairs import options, text_pairs

PROMPTS, RESPONSES = ["Say it:", "Say it:", "Another"], [" red", " a longer one", " x"]
WITHOUT_CLASSIFIER = ["cohere", "granite", "mamba", "recurrent_gemma", "modernbert-decoder"]


def saved(family: str, folder: Path) -> str:
    FAMILIES[family].make().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def own_scores(model: RewardModel) -> list[float]:
    """What a classifier gives as transformers' classifiers are called: each text alone, its last token scored."""
    rows = [[*model.tokenizer(p + r)["input_ids"], 258] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    with torch.no_grad():
        return [model.model(input_ids=torch.tensor([row])).logits.item() for row in rows]


@pytest.mark.parametrize("family", WITHOUT_CLASSIFIER)
def test_a_reward_head_goes_on_any_decoder(family: str, tmp_path: Path):
    base = saved(family, tmp_path / "base")
    lora = LoraConfig(r=2, target_modules=".*(q_proj|in_proj|Wqkv)$")
    config = RewardConfig(**options(tmp_path / "reward", per_device_train_batch_size=4))
    trainer = RewardTrainer(base, args=config, train_dataset=text_pairs(4), peft_config=lora)
    trainer.train()
    trainer.save_model()
    model = trainer.model
    assert is_ours(unwrapped(model)) and not model.is_plain
    scores = model.score(PROMPTS, RESPONSES)
    model.eval()
    assert own_scores(model) == pytest.approx(scores, abs=1e-4)
    assert load_reward_model(tmp_path / "reward").score(PROMPTS, RESPONSES) == pytest.approx(scores, abs=1e-5)
    model.merge_and_save(tmp_path / "merged")
    assert load_reward_model(tmp_path / "merged").score(PROMPTS, RESPONSES) == pytest.approx(scores, abs=1e-4)
    for folder in ("reward", "merged"):
        assert describe_folder(tmp_path / folder).own_class
    card = (tmp_path / "reward" / "README.md").read_text()
    assert "Plain transformers has no classifier" in card and "load_reward_model(" in card
    assert "AutoModelForSequenceClassification." not in card


def test_a_reward_adapter_scores_on_the_policys_base_as_on_its_own(tmp_path: Path):
    base = saved("modernbert-decoder", tmp_path / "base")  # whose LM head doesn't read what the reward head reads
    model = RewardModel.from_backbone(base, lora=LoraConfig(r=2, target_modules=["Wqkv", "q_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(tmp_path / "reward")
    args = PPOConfig(**options(tmp_path / "ppo", max_new_tokens=3, num_mini_batches=1))
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    rows = text_pairs(2).select_columns("prompt")
    trainer = PPOTrainer(base, args=args, train_dataset=rows, peft_config=lora, reward=str(tmp_path / "reward"))
    trainer.train()
    rollout: Any = trainer.rollout
    assert rollout.scores.tolist() == pytest.approx(model.score_ids(rollout.prompt_ids, rollout.response_ids), abs=1e-4)


def test_a_classifier_with_another_head_is_refused_rather_than_given_a_new_one(tmp_path: Path):
    config: Any = FAMILIES["modernbert-decoder"].make().config
    config.num_labels = 1
    ModernBertDecoderForSequenceClassification(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a ModernBertDecoderForSequenceClassification whose head isn't a linear"):
        load_reward_model(tmp_path)


def test_plain_transformers_refuses_what_it_has_no_class_for(tmp_path: Path):
    RewardModel.from_backbone(saved("granite", tmp_path / "base")).save_pretrained(tmp_path / "reward")
    assert AutoTokenizer.from_pretrained(tmp_path / "reward").pad_token == "<pad>"
    with pytest.raises(ValueError, match="contains custom code which must be executed"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", trust_remote_code=False)
