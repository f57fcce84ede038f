"""Alignment training inside the Hugging Face Trainer: reward models, PPO, DPO and IPO.

`import hf_align` loads neither torch nor transformers: the names below, and the submodules (`hf_align.losses`,
`hf_align.trainers`, ...), are imported when they are first used.
"""

import logging
from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names
from hf_align.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ below finds all of these
    from hf_align import (
        acceleration as acceleration,
    )
    from hf_align import (
        algorithms as algorithms,
    )
    from hf_align import (
        cli as cli,
    )
    from hf_align import (
        collators as collators,
    )
    from hf_align import (
        data as data,
    )
    from hf_align import (
        errors as errors,
    )
    from hf_align import (
        evaluation as evaluation,
    )
    from hf_align import (
        experiments as experiments,
    )
    from hf_align import (
        files as files,
    )
    from hf_align import (
        hub as hub,
    )
    from hf_align import (
        layout as layout,
    )
    from hf_align import (
        lazy as lazy,
    )
    from hf_align import (
        losses as losses,
    )
    from hf_align import (
        model_cards as model_cards,
    )
    from hf_align import (
        models as models,
    )
    from hf_align import (
        planning as planning,
    )
    from hf_align import (
        progress as progress,
    )
    from hf_align import (
        report as report,
    )
    from hf_align import (
        rewards as rewards,
    )
    from hf_align import (
        rl as rl,
    )
    from hf_align import (
        rollouts as rollouts,
    )
    from hf_align import (
        statistics as statistics,
    )
    from hf_align import (
        trainers as trainers,
    )
    from hf_align import (
        version as version,
    )
    from hf_align.models.loading import load_policy as load_policy
    from hf_align.models.reward import RewardModel, RewardModelConfig, load_reward_model
    from hf_align.models.value import PolicyWithValueHead
    from hf_align.report.live import CurvesCallback
    from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
    from hf_align.trainers.ppo.config import PPOConfig
    from hf_align.trainers.ppo.trainer import PPOTrainer
    from hf_align.trainers.reward import RewardConfig, RewardTrainer

__all__ = [
    "CurvesCallback",
    "DPOConfig",
    "DPOTrainer",
    "IPOConfig",
    "IPOTrainer",
    "PPOConfig",
    "PPOTrainer",
    "PolicyWithValueHead",
    "RewardConfig",
    "RewardModel",
    "RewardModelConfig",
    "RewardTrainer",
    "load_policy",
    "load_reward_model",
]

_SUBMODULES = (
    "acceleration",
    "algorithms",
    "cli",
    "collators",
    "data",
    "errors",
    "evaluation",
    "experiments",
    "files",
    "hub",
    "layout",
    "lazy",
    "losses",
    "model_cards",
    "models",
    "planning",
    "progress",
    "report",
    "rewards",
    "rl",
    "rollouts",
    "statistics",
    "trainers",
    "version",
)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "trainers": (
            *("RewardTrainer", "RewardConfig", "DPOTrainer", "DPOConfig"),
            *("IPOTrainer", "IPOConfig", "PPOTrainer", "PPOConfig"),
        ),
        "models.loading": ("load_policy",),
        "models.reward": ("RewardModel", "RewardModelConfig", "load_reward_model"),
        "models.value": ("PolicyWithValueHead",),
        "report.live": ("CurvesCallback",),
    },
    _SUBMODULES,
)


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether this is no remark about the one optional kernel that `hf_align.models.quantized.keep_unpacked` avoids."""
    return "gemm_4bit_forward" not in record.getMessage()


# On CPUs with fast bfloat16 it makes that remark to everyone who imports peft.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_wanted)
