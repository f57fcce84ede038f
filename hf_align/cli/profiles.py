"""Every number of a quickstart in one place: how much data, how many steps, how much evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Profile:
    """The size of a quickstart run.

    Attributes:
        reward: Fields of `RewardConfig`.
        dpo: Fields of `DPOConfig`.
        ipo: Fields of `IPOConfig`.
        lora: Fields of `LoraConfig`, the same for all three.
        eval_pairs: Held-out pairs per trainer.
        rated_texts: Held-out sentences per domain for the reward model; None for all.
        prompts: Held-out prompts from which each policy is sampled.
        max_new_tokens: Longest continuation, in tokens.
        sample_batch: Prompts sampled together.
        resamples: Bootstrap resamples of every interval.
    """

    reward: Mapping[str, Any]
    dpo: Mapping[str, Any]
    ipo: Mapping[str, Any]
    eval_pairs: int
    rated_texts: int | None
    prompts: int
    max_new_tokens: int
    sample_batch: int = 32
    resamples: int = 2000
    lora: Mapping[str, Any] = field(default_factory=lambda: {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"})


# row_tokens packs several prompts into a row: sentences differ in length, so one prompt a row would be a third padding.
_COMMON = {"lr_scheduler_type": "cosine", "row_tokens": 512, "save_total_limit": 1}
_FULL = {**_COMMON, "per_device_train_batch_size": 16, "per_device_eval_batch_size": 32, "logging_steps": 1}
_SMOKE = {**_COMMON, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 8, "logging_steps": 1}

PROFILES = {
    "full": Profile(
        reward={**_FULL, "learning_rate": 2e-4, "max_steps": 60, "warmup_steps": 5, "save_steps": 15},
        dpo={**_FULL, "beta": 0.1, "learning_rate": 2e-4, "max_steps": 30, "warmup_steps": 3, "save_steps": 10},
        ipo={**_FULL, "beta": 0.1, "learning_rate": 2e-4, "max_steps": 30, "warmup_steps": 3, "save_steps": 10},
        eval_pairs=120,
        rated_texts=None,
        prompts=256,
        max_new_tokens=32,
    ),
    "smoke": Profile(
        reward={**_SMOKE, "learning_rate": 2e-4, "max_steps": 5, "warmup_steps": 1, "save_steps": 3},
        dpo={**_SMOKE, "beta": 0.1, "learning_rate": 2e-4, "max_steps": 4, "warmup_steps": 1, "save_steps": 2},
        ipo={**_SMOKE, "beta": 0.1, "learning_rate": 2e-4, "max_steps": 4, "warmup_steps": 1, "save_steps": 2},
        eval_pairs=8,
        rated_texts=8,
        prompts=24,
        max_new_tokens=16,
        sample_batch=24,
        resamples=200,
    ),
}
