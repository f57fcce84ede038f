"""Trainers: `transformers.Trainer` subclasses for reward models, PPO, DPO, IPO and supervised fine-tuning."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
    from hf_align.trainers.ensemble import train_ensemble
    from hf_align.trainers.ensemble_config import EnsembleConfig
    from hf_align.trainers.ppo.config import PPOConfig
    from hf_align.trainers.ppo.trainer import PPOTrainer
    from hf_align.trainers.reward import RewardConfig, RewardTrainer
    from hf_align.trainers.sft import SFTConfig, SFTTrainer

__all__ = [
    "DPOConfig",
    "DPOTrainer",
    "EnsembleConfig",
    "IPOConfig",
    "IPOTrainer",
    "PPOConfig",
    "PPOTrainer",
    "RewardConfig",
    "RewardTrainer",
    "SFTConfig",
    "SFTTrainer",
    "train_ensemble",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "reward": ("RewardTrainer", "RewardConfig"),
        "ensemble": ("train_ensemble",),
        "ensemble_config": ("EnsembleConfig",),
        "dpo": ("DPOTrainer", "DPOConfig", "IPOTrainer", "IPOConfig"),
        "ppo.trainer": ("PPOTrainer",),
        "ppo.config": ("PPOConfig",),
        "sft": ("SFTTrainer", "SFTConfig"),
    },
)
