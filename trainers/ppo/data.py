"""Values that start from the reward."""

from __future__ import annotations

from hf_align.errors import UserError
from hf_align.models.reward import RewardModel
from hf_align.models.value import PolicyWithValueHead
from hf_align.rewards import AdapterReward, Reward


def start_values(policy: PolicyWithValueHead, reward: Reward) -> None:
    """Let values start from the head of the reward, which must be one reward model.

    Raises:
        UserError: It isn't.
    """
    source = reward.members[0].source if [part.weight for part in reward.members] == [1.0] else None
    if isinstance(source, AdapterReward):
        policy.init_from_reward(source, source.adapter)
    elif isinstance(source, RewardModel):
        policy.init_from_reward(source)
    else:
        names = ", ".join(f"{part.weight:g} x {part.name}" for part in reward.members)
        raise UserError(
            f"value_init='reward' needs one reward model as the whole reward, whose head the values start from, not "
            f"{names}; set value_init='zero'."
        )
