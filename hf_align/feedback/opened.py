"""Rewards as the loop uses them: what is given by its name computes on a GPU, if there is one."""

from __future__ import annotations

import os
from typing import Any

from hf_align.models.placement import to_gpu
from hf_align.rewards import Reward, as_reward


def open_reward(reward: Any) -> Reward:
    """A reward, ready to score: models that are loaded for it are moved to the GPU, those given as objects stay.

    Args:
        reward: As `hf_align.rewards.as_reward` takes it.

    Raises:
        UserError: It is no reward, or can't be loaded.
    """
    opened = as_reward(reward)
    entries = reward if isinstance(reward, list) else [reward]
    for entry, part in zip(entries, opened.members, strict=False):  # a Reward has parts that are loaded already
        if any(isinstance(each, str | os.PathLike) for each in (entry if isinstance(entry, tuple) else [entry])):
            to_gpu(part.source, None)
    return opened


def log_odds_of(reward: Reward) -> float:
    """What makes a difference of scores log odds: that of a single reward model or ensemble, 1 for anything else."""
    parts = reward.members
    return float(getattr(parts[0].source, "log_odds", 1.0)) if len(parts) == 1 else 1.0
