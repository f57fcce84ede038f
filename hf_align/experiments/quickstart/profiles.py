"""All numbers of a quickstart: data, steps and evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_align.data.embedded.ratings import Domain


@dataclass(frozen=True)
class Profile:
    """The size of a quickstart run.

    Attributes:
        reward: Fields of `RewardConfig`.
        dpo: Fields of `DPOConfig`.
        ipo: Fields of `IPOConfig`.
        ppo: Fields of `PPOConfig`.
        lora: Fields of `LoraConfig`, the same for all four.
        eval_pairs: Held-out pairs per trainer (the reward model gets rows of as many sentences), or prompts for PPO.
        reward_responses: Sentences in each of the reward model's rows, all rated, to one prompt.
        reward_openings: Share of those rows whose prompt gives opening words, as the prompts of PPO do.
        reward_shares: Share of each domain in those rows.
        rated_texts: Held-out sentences per domain for the reward model; None for all.
        prompts: Held-out prompts to sample each policy with.
        max_new_tokens: Longest continuation, in tokens.
        sample_batch: Prompts sampled at a time.
        resamples: Bootstrap resamples of every interval.
    """

    reward: Mapping[str, Any]
    dpo: Mapping[str, Any]
    ipo: Mapping[str, Any]
    ppo: Mapping[str, Any]
    eval_pairs: int
    rated_texts: int | None
    prompts: int
    max_new_tokens: int
    reward_responses: int = 8
    reward_openings: float = 0.15
    # Movies need the most sentences: there a reward model is furthest from a person.
    reward_shares: Mapping[Domain, float] = field(
        default_factory=lambda: {"movies": 0.5, "products": 0.2, "tweets": 0.3}
    )
    sample_batch: int = 32
    resamples: int = 2000
    lora: Mapping[str, Any] = field(default_factory=lambda: {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"})


# row_tokens packs several prompts into a row: lengths differ, so one prompt per row would be a third padding.
_COMMON = {"lr_scheduler_type": "cosine", "row_tokens": 512, "save_total_limit": 1}
# A rollout is 32 responses, 4 per prompt, with two passes of two steps: one log line per rollout.
_PPO = {
    **_COMMON,
    "lr_scheduler_type": "linear",
    "num_samples": 4,
    "num_ppo_epochs": 2,
    "num_mini_batches": 2,
    "logging_steps": 4,
    "kl_controller": "proportional",
    "target_kl": 10.0,
}
# Labels are the shares of people's votes, so the gap of the means is in them already.
# Two rows of eight sentences are about 450 tokens: one packed row, hardly ever two that would be half empty.
_REWARD = {"margin_mode": "none", "row_tokens": 640}
_FULL = {**_COMMON, "per_device_train_batch_size": 16, "per_device_eval_batch_size": 32, "logging_steps": 1}
_SMOKE = {**_COMMON, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 8, "logging_steps": 1}

PROFILES = {
    "full": Profile(
        reward={
            **_FULL,
            **_REWARD,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "max_steps": 540,
            "warmup_steps": 27,
            "save_steps": 30,
        },
        dpo={**_FULL, "beta": 0.1, "learning_rate": 5e-4, "max_steps": 16, "warmup_steps": 2, "save_steps": 4},
        ipo={**_FULL, "beta": 0.1, "learning_rate": 4e-4, "max_steps": 16, "warmup_steps": 2, "save_steps": 4},
        ppo={
            **_PPO,
            "per_device_train_batch_size": 16,
            "per_device_eval_batch_size": 32,
            "max_new_tokens": 32,
            "learning_rate": 3e-4,
            "value_learning_rate": 1e-3,
            "total_episodes": 1024,
            # In units of the reward model's scores: their standard deviation on rated sentences is about 1.5.
            "kl_coef": 0.22,
            "kl_horizon": 120.0,
            # The reward model learnt from whole sentences and doesn't mind cut ones: without it PPO stops ending texts.
            "missing_eos_penalty": 1.0,
            "save_steps": 24,
        },
        eval_pairs=64,
        rated_texts=None,
        prompts=200,
        max_new_tokens=32,
    ),
    "smoke": Profile(
        reward={
            **_SMOKE,
            **_REWARD,
            "per_device_train_batch_size": 1,
            "learning_rate": 2e-4,
            "max_steps": 4,
            "warmup_steps": 1,
            "save_steps": 2,
        },
        dpo={**_SMOKE, "beta": 0.1, "learning_rate": 2e-4, "max_steps": 3, "warmup_steps": 1, "save_steps": 2},
        ipo={**_SMOKE, "beta": 0.1, "learning_rate": 2e-4, "max_steps": 3, "warmup_steps": 1, "save_steps": 2},
        ppo={
            **_PPO,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 8,
            "max_new_tokens": 12,
            "learning_rate": 2e-4,
            "total_episodes": 16,
            "save_steps": 4,
        },
        eval_pairs=8,
        rated_texts=6,
        prompts=18,
        max_new_tokens=12,
        reward_responses=4,
        sample_batch=18,
        resamples=200,
    ),
}
