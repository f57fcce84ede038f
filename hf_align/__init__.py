"""Alignment training inside the Hugging Face Trainer: reward models, PPO, DPO and IPO.

`import hf_align` loads neither torch nor transformers: the names below, and the submodules (`hf_align.losses`,
`hf_align.trainers`, ...), are imported when they are first used.
"""

import logging
from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names
from hf_align.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ below imports these
    from hf_align import (
        acceleration as acceleration,
        algorithms as algorithms,
        broken_files as broken_files,
        cli as cli,
        coerce as coerce,
        collators as collators,
        data as data,
        errors as errors,
        evaluation as evaluation,
        experiments as experiments,
        feedback as feedback,
        fields as fields,
        files as files,
        full_disk as full_disk,
        hub as hub,
        layout as layout,
        lazy as lazy,
        losses as losses,
        model_cards as model_cards,
        models as models,
        numbers as numbers,
        pair_statistics as pair_statistics,
        planning as planning,
        printable as printable,
        progress as progress,
        report as report,
        rewards as rewards,
        rl as rl,
        rollouts as rollouts,
        statistics as statistics,
        tracking as tracking,
        trainers as trainers,
        unusable_paths as unusable_paths,
        version as version,
        yaml_text as yaml_text,
    )
    from hf_align.models.best import load_best
    from hf_align.models.ensemble import RewardEnsemble
    from hf_align.models.loading import load_policy as load_policy
    from hf_align.models.reward import RewardModel, load_reward_model
    from hf_align.models.reward_config import RewardModelConfig
    from hf_align.models.value import PolicyWithValueHead
    from hf_align.report.live import CurvesCallback
    from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
    from hf_align.trainers.ensemble import train_ensemble
    from hf_align.trainers.hybrid.config import HybridConfig
    from hf_align.trainers.hybrid.trainer import HybridTrainer
    from hf_align.trainers.online.config import OnlineDPOConfig
    from hf_align.trainers.online.trainer import OnlineDPOTrainer
    from hf_align.trainers.ppo.config import PPOConfig
    from hf_align.trainers.ppo.trainer import PPOTrainer
    from hf_align.trainers.reward import RewardConfig, RewardTrainer

__all__ = [
    "CurvesCallback",
    "DPOConfig",
    "DPOTrainer",
    "HybridConfig",
    "HybridTrainer",
    "IPOConfig",
    "IPOTrainer",
    "OnlineDPOConfig",
    "OnlineDPOTrainer",
    "PPOConfig",
    "PPOTrainer",
    "PolicyWithValueHead",
    "RewardConfig",
    "RewardEnsemble",
    "RewardModel",
    "RewardModelConfig",
    "RewardTrainer",
    "load_best",
    "load_policy",
    "load_reward_model",
    "train_ensemble",
]

_SUBMODULES = (
    "acceleration",
    "algorithms",
    "broken_files",
    "cli",
    "coerce",
    "collators",
    "data",
    "errors",
    "evaluation",
    "experiments",
    "feedback",
    "fields",
    "files",
    "full_disk",
    "hub",
    "layout",
    "lazy",
    "losses",
    "model_cards",
    "models",
    "numbers",
    "pair_statistics",
    "planning",
    "printable",
    "progress",
    "report",
    "rewards",
    "rl",
    "rollouts",
    "statistics",
    "tracking",
    "trainers",
    "unusable_paths",
    "version",
    "yaml_text",
)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "trainers": (
            *("RewardTrainer", "RewardConfig", "DPOTrainer", "DPOConfig"),
            *("IPOTrainer", "IPOConfig", "PPOTrainer", "PPOConfig"),
            *("OnlineDPOTrainer", "OnlineDPOConfig", "HybridTrainer", "HybridConfig", "train_ensemble"),
        ),
        "models.best": ("load_best",),
        "models.ensemble": ("RewardEnsemble",),
        "models.loading": ("load_policy",),
        "models.reward": ("RewardModel", "load_reward_model"),
        "models.reward_config": ("RewardModelConfig",),
        "models.value": ("PolicyWithValueHead",),
        "report.live": ("CurvesCallback",),
    },
    _SUBMODULES,
)


# On CPUs with fast bfloat16, importing peft makes bitsandbytes warn about an optional kernel, which
# `hf_align.models.quantized.keep_unpacked` avoids.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in record.getMessage()
)
