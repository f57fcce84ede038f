"""Reinforcement learning without a model: returns and advantages, running statistics, KL controllers, a toy MDP."""

from hf_align.rl.advantages import discounted_returns, gae, group_advantages, whiten
from hf_align.rl.kl_controllers import FixedKLController, ProportionalKLController, ThresholdKLController
from hf_align.rl.running_statistics import RunningMeanStd
from hf_align.rl.toy_mdp import LanguageMDP

__all__ = [
    "FixedKLController",
    "LanguageMDP",
    "ProportionalKLController",
    "RunningMeanStd",
    "ThresholdKLController",
    "discounted_returns",
    "gae",
    "group_advantages",
    "whiten",
]
