"""Rewards score responses: a reward model, a function, an object with `score`, or a weighted list of them.

Judges compare two responses to a prompt.
"""

from hf_align.rewards.adapter import AdapterReward
from hf_align.rewards.judges import Judge, Judgement, compare_all, judge_orders, rank_responses
from hf_align.rewards.reward import NonFiniteReward, Reward, as_reward

__all__ = [
    "AdapterReward",
    "Judge",
    "Judgement",
    "NonFiniteReward",
    "Reward",
    "as_reward",
    "compare_all",
    "judge_orders",
    "rank_responses",
]
