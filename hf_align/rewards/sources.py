"""Reward models that rewards name, and whether they can score, without loading them."""

from typing import Any

from hf_align.models.ensemble_files import member_sources
from hf_align.models.kinds import check_head
from hf_align.models.sources import check_source


def named_models(reward: Any) -> list[str]:
    """The folders and Hub ids among rewards; the others are functions or loaded.

    Args:
        reward: As `hf_align.rewards.named.read_reward` gives it.
    """
    sources = [entry[1] if isinstance(entry, tuple) else entry for entry in reward] if isinstance(reward, list) else []
    return [source for source in (sources or [reward]) if isinstance(source, str)]


def check_named_models(reward: Any) -> None:
    """Refuse reward models that aren't there or have no trained head; loads no weights.

    Args:
        reward: As for `named_models`.

    Raises:
        UserError: A folder or Hub id holds no reward model.
    """
    for source in named_models(reward):
        for member in member_sources(source):
            check_source(member)
            check_head(member)
