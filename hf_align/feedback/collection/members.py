"""Scores of an ensemble's members, by which pairs are chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hf_align.collators.rows import text_of
from hf_align.errors import UserError
from hf_align.feedback.opened import log_odds_of, open_reward
from hf_align.feedback.records import Prompt, Response
from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.placement import to_gpu
from hf_align.models.sources import is_ensemble

MemberScores = Callable[[Sequence[Prompt], Sequence[Response]], dict[str, list[float]]]
"""Takes responses with their prompts, and gives each response's scores by every member, by the response's id; their
differences are log odds."""


def check_members(reward: Any) -> None:
    """Refuse what is no ensemble, without loading it.

    Args:
        reward: As for `read_members`.

    Raises:
        UserError: It has no members.
    """
    folder = isinstance(reward, str | os.PathLike) and is_ensemble(reward)
    several = isinstance(reward, list) and len(reward) > 1
    if not (folder or several or isinstance(reward, RewardEnsemble)):
        raise UserError("reward is no ensemble; give a RewardEnsemble, its folder, or a list of at least two rewards")


def read_members(reward: Any) -> MemberScores:
    """The members of an ensemble as scorers.

    Args:
        reward: A `RewardEnsemble`, its folder or Hub id, or a list of at least two rewards, each as
            `hf_align.rewards.as_reward` takes it.

    Raises:
        UserError: It is none of these.
    """
    check_members(reward)
    if isinstance(reward, str | os.PathLike):
        reward = to_gpu(RewardEnsemble.from_pretrained(reward), None)
    if isinstance(reward, RewardEnsemble):
        ensemble = reward
        scale = torch.tensor([float(getattr(member, "log_odds", 1.0)) for member in ensemble.members])

        def of_ensemble(prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, list[float]]:
            contents = [prompt.content for prompt in prompts], [response.content for response in responses]
            return _by_response(responses, ensemble.member_scores(*contents) * scale[:, None])

        return of_ensemble
    rewards = [open_reward(each) for each in reward]

    def of_list(prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, list[float]]:
        contents = [prompt.content for prompt in prompts], [text_of(response.content) for response in responses]
        return _by_response(responses, torch.stack([score(*contents) * log_odds_of(score) for score in rewards]))

    return of_list


def _by_response(responses: Sequence[Response], scores: torch.Tensor) -> dict[str, list[float]]:
    return {response.id: column for response, column in zip(responses, scores.T.tolist(), strict=True)}
