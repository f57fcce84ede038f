"""Alignment training inside the Hugging Face Trainer: reward models, PPO, DPO and IPO.

`import hf_align` loads neither torch nor transformers: the names below, and the submodules (`hf_align.losses`,
`hf_align.trainers`, ...), are imported when they are first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ below finds all of these
    from hf_align import advantages as advantages
    from hf_align import branches as branches
    from hf_align import cli as cli
    from hf_align import collators as collators
    from hf_align import data as data
    from hf_align import environments as environments
    from hf_align import errors as errors
    from hf_align import evaluation as evaluation
    from hf_align import hub as hub
    from hf_align import kl as kl
    from hf_align import logprobs as logprobs
    from hf_align import losses as losses
    from hf_align import model_cards as model_cards
    from hf_align import models as models
    from hf_align import preferences as preferences
    from hf_align import report as report
    from hf_align import rewards as rewards
    from hf_align import rollouts as rollouts
    from hf_align import trainers as trainers
    from hf_align.models.loading import load_policy, load_reward_model
    from hf_align.models.reward_model import RewardModel, RewardModelConfig
    from hf_align.models.value_head import PolicyWithValueHead
    from hf_align.report.live import CurvesCallback
    from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
    from hf_align.trainers.ppo import PPOTrainer
    from hf_align.trainers.ppo_config import PPOConfig
    from hf_align.trainers.reward import RewardConfig, RewardTrainer

__version__ = "0.1.0"

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

_MODULES_OF_NAMES = {
    "trainers.reward": ("RewardTrainer", "RewardConfig"),
    "trainers.dpo": ("DPOTrainer", "DPOConfig", "IPOTrainer", "IPOConfig"),
    "trainers.ppo": ("PPOTrainer",),
    "trainers.ppo_config": ("PPOConfig",),
    "models.loading": ("load_policy", "load_reward_model"),
    "models.reward_model": ("RewardModel", "RewardModelConfig"),
    "models.value_head": ("PolicyWithValueHead",),
    "report.live": ("CurvesCallback",),
}
_HOME = {name: module for module, names in _MODULES_OF_NAMES.items() for name in names}
_SUBMODULES = (
    "advantages",
    "branches",
    "cli",
    "collators",
    "data",
    "environments",
    "errors",
    "evaluation",
    "hub",
    "kl",
    "logprobs",
    "losses",
    "model_cards",
    "models",
    "preferences",
    "report",
    "rewards",
    "rollouts",
    "trainers",
)


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether this is no remark about the one optional kernel that `hf_align.models.loading.keep_unpacked` avoids."""
    return "gemm_4bit_forward" not in record.getMessage()


# On CPUs with fast bfloat16 it makes that remark to everyone who imports peft.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_wanted)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"hf_align.{_HOME[name]}"), name)
        globals()[name] = value  # the next access is a plain one
        return value
    if name in _SUBMODULES:
        return import_module(f"hf_align.{name}")  # the import system sets the attribute
    raise AttributeError(f"module 'hf_align' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
