"""Opinions on the responses of a rollout: by a reward's scores, or by a judge of pairs.

Notation: D prompts with K responses each, S = D * K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from hf_align.collators.rows import as_response
from hf_align.feedback.opened import log_odds_of
from hf_align.rewards import Judge, NonFiniteReward, Reward, compare_all
from hf_align.rewards.judges import TIE, mean_over_others
from hf_align.rollouts import Response
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.rollouts.data import Row
from hf_align.trainers.rollouts.evaluate import Measured
from hf_align.trainers.rollouts.roles import ModelRoles
from hf_align.trainers.rollouts.scoring import penalise_missing_eos, score_responses


@dataclass(frozen=True)
class Opinions:
    """What a reward or judge says of a rollout's responses.

    Attributes:
        values: `[D, K]` float64 by which a prompt's responses are ranked; NaN: no opinion.
        preferences: `[D, K, K]` float64: probability that the response of the row is better than that of the column;
            1/2 is a tie, NaN no opinion.
        scores: `[S]` the reward's raw scores; zeros of a judge.
        metrics: Figures of the responses `[S]` by name.
        error: The reward's error about a score that isn't finite.
    """

    values: Tensor
    preferences: Tensor
    scores: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    error: NonFiniteReward | None = None


class Label(Protocol):
    """What gives opinions: `RewardLabel` or `JudgeLabel`."""

    def __call__(self, rows: list[Row], responses: list[Response]) -> Opinions:
        """Opinions on `num_samples` adjacent responses to each prompt."""
        ...


class RewardLabel:
    """Opinions by a reward: a higher score is better, with the probability of Bradley and Terry.

    Scores of cut responses are lowered by `missing_eos_penalty` first. The difference of a single reward model's scores
    is brought to log odds, as `RewardJudge` does.
    """

    def __init__(self, reward: Reward, config: OnlineDPOConfig):
        self.reward, self.config = reward, config
        self.log_odds = log_odds_of(reward)

    def __call__(self, rows: list[Row], responses: list[Response]) -> Opinions:
        """Score the responses."""
        scores, error = score_responses(rows, responses, self.reward)
        finished = torch.tensor([response.finished for response in responses])
        shaped = penalise_missing_eos(scores, finished, self.config)
        values = shaped.double().view(-1, self.config.num_samples)
        preferences = ((values[:, :, None] - values[:, None, :]) * self.log_odds).sigmoid()
        metrics = {"objective/scores": scores, "objective/shaped_scores": shaped}
        if error is None:
            several = self.reward.parts if len(self.reward.parts) > 1 else {}
            metrics |= {f"rewards/{name}": part for name, part in several.items()}
            metrics |= {f"ensemble/{name}": part for name, part in self.reward.details.items()}
        return Opinions(values, preferences, scores, metrics, error)


class JudgeLabel:
    """Opinions by a judge, which is asked about all pairs of a prompt's responses."""

    def __init__(self, judge: Judge, config: OnlineDPOConfig):
        self.judge, self.config = judge, config

    def __call__(self, rows: list[Row], responses: list[Response]) -> Opinions:
        """Ask the judge."""
        size = self.config.num_samples
        groups = [responses[start : start + size] for start in range(0, len(responses), size)]
        prompts = [rows[group[0].prompt_index]["prompt"] for group in groups]
        sides = [
            [as_response(each.text, prompt) for each in group] for prompt, group in zip(prompts, groups, strict=True)
        ]
        tables = compare_all(self.judge, prompts, sides)
        values = as_numbers([mean_over_others(table) for table in tables])
        return Opinions(values, as_numbers(tables), torch.zeros(len(responses)))


class WinRate:
    """An evaluation's measure by a judge: its preference for the policy's responses over the reference's.

    Both are sampled with the same random numbers, so that the same policy gives the same response. A pair on which the
    judge has no opinion counts as a tie.
    """

    def __init__(self, judge: Judge, roles: ModelRoles):
        self.judge, self.roles = judge, roles
        self.names = ["win_rate"]

    def __call__(self, rows: list[Row], responses: list[Response], seed: int) -> Measured:
        """Sample the reference's responses and compare."""
        prompts = [row["prompt"] for row in rows]
        pairs = zip(prompts, responses, self.roles.sample_reference(rows, 1, seed), strict=True)
        sides = [[as_response(ours.text, prompt), as_response(theirs.text, prompt)] for prompt, ours, theirs in pairs]
        won = as_numbers([table[0][1] for table in compare_all(self.judge, prompts, sides)])
        return {"win_rate": won.nan_to_num(TIE).float()}, None


def as_numbers(opinions: Sequence[Any]) -> Tensor:
    """Nested lists of opinions as a float64 tensor, with NaN for None."""

    def number(value: Any) -> Any:
        return [number(each) for each in value] if isinstance(value, list) else float("nan") if value is None else value

    return torch.tensor(number([*opinions]), dtype=torch.float64)
