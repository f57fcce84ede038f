"""Trainers: subclasses of `transformers.Trainer` for reward models, PPO, DPO, IPO, online DPO, SFT, and hybrids."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
    from hf_align.trainers.ensemble import train_ensemble
    from hf_align.trainers.ensemble_config import EnsembleConfig
    from hf_align.trainers.hybrid.config import HybridConfig, Stage, Until
    from hf_align.trainers.hybrid.trainer import HybridTrainer
    from hf_align.trainers.online.config import OnlineDPOConfig
    from hf_align.trainers.online.trainer import OnlineDPOTrainer
    from hf_align.trainers.ppo.config import PPOConfig
    from hf_align.trainers.ppo.trainer import PPOTrainer
    from hf_align.trainers.reward import RewardConfig, RewardTrainer
    from hf_align.trainers.sft import SFTConfig, SFTTrainer

__all__ = [
    "DPOConfig",
    "DPOTrainer",
    "EnsembleConfig",
    "HybridConfig",
    "HybridTrainer",
    "IPOConfig",
    "IPOTrainer",
    "OnlineDPOConfig",
    "OnlineDPOTrainer",
    "PPOConfig",
    "PPOTrainer",
    "RewardConfig",
    "RewardTrainer",
    "SFTConfig",
    "SFTTrainer",
    "Stage",
    "Until",
    "train_ensemble",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "reward": ("RewardTrainer", "RewardConfig"),
        "ensemble": ("train_ensemble",),
        "ensemble_config": ("EnsembleConfig",),
        "dpo": ("DPOTrainer", "DPOConfig", "IPOTrainer", "IPOConfig"),
        "hybrid.config": ("HybridConfig", "Stage", "Until"),
        "hybrid.trainer": ("HybridTrainer",),
        "online.trainer": ("OnlineDPOTrainer",),
        "online.config": ("OnlineDPOConfig",),
        "ppo.trainer": ("PPOTrainer",),
        "ppo.config": ("PPOConfig",),
        "sft": ("SFTTrainer", "SFTConfig"),
    },
)
