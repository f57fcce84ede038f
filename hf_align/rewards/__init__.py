"""Rewards score responses: a reward model, a function, an object with `score`, or a weighted list of them."""

from hf_align.rewards.adapter import AdapterReward
from hf_align.rewards.reward import NonFiniteReward, Reward, as_reward

__all__ = ["AdapterReward", "NonFiniteReward", "Reward", "as_reward"]
