"""Trainers on the tiny model and the toy language, with options of `Trainer` to try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig

from hf_align import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer
from hf_align.trainers.sft import SFTConfig, SFTTrainer
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trainers.pairs import ROWS, options, pairs
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

DEMONSTRATIONS = Dataset.from_list([{"prompt": row[0], "completion": f" {row[1]}"} for row in ROWS])
ROLLOUTS = {"per_device_train_batch_size": 4, "num_mini_batches": 2, "num_ppo_epochs": 1, "max_new_tokens": 3}


def dpo(out: Path, *, others: dict[str, Any] | None = None, **changes: Any) -> DPOTrainer:
    data = {"train_dataset": pairs(5), "eval_dataset": pairs(3), "processing_class": tiny_tokenizer()}
    adapter = LoraConfig(r=2, target_modules=["q_proj"])
    return DPOTrainer(
        tiny_model(), args=DPOConfig(**options(out, **changes)), peft_config=adapter, **{**data, **(others or {})}
    )


def reward(out: Path, *, others: dict[str, Any] | None = None, **changes: Any) -> RewardTrainer:
    data = {"train_dataset": pairs(5), "eval_dataset": pairs(3)}
    return RewardTrainer(
        changes.pop("model"), args=RewardConfig(**options(out, **changes)), **{**data, **(others or {})}
    )


def ppo(out: Path, *, others: dict[str, Any] | None = None, **changes: Any) -> PPOTrainer:
    data = {"train_dataset": varied_prompts(9), "eval_dataset": varied_prompts(4), "processing_class": toy_tokenizer()}
    args = PPOConfig(**options(out, **{**ROLLOUTS, **changes}))
    return PPOTrainer(toy_model(), args=args, reward=toy_reward(3), **{**data, **(others or {})})


def sft(out: Path, *, others: dict[str, Any] | None = None, **changes: Any) -> SFTTrainer:
    data = {"train_dataset": DEMONSTRATIONS, "processing_class": tiny_tokenizer()}
    return SFTTrainer(tiny_model(), SFTConfig(**options(out, **changes)), **{**data, **(others or {})})
