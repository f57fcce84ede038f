"""A reward as a judge: it prefers the response with the higher score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hf_align.collators.rows import Side, text_of
from hf_align.errors import UserError
from hf_align.feedback.opened import log_odds_of, open_reward
from hf_align.numbers import is_number
from hf_align.rewards.judges import TIE, Judgement


def check_tie_band(value: float | None) -> None:
    """Refuse a band of ties that is no number from 0, or None.

    Raises:
        UserError: It is negative, infinite or not a number.
    """
    if value is not None and not (is_number(value) and 0 <= value < float("inf")):
        raise UserError(f"tie_band is {value!r}; give a number from 0, or None for probabilities")


class RewardJudge:
    """A reward as a judge. Each response is scored by itself, so that there is no order to mind.

    Args:
        reward: Anything that `hf_align.rewards.as_reward` takes: a reward model, an ensemble, a function, a weighted
            list of them.
        name: Name in reports and stores. Default: the reward's folder, id or function.
        tie_band: None: the preference is the probability sigmoid(score_first - score_second) of Bradley and Terry; of
            a single reward model the difference is first brought to log odds (`RewardModel.log_odds`). A number: the
            preference is 1 or 0, and a tie where the scores differ by no more than that.

    Raises:
        UserError: It is no reward, or `tie_band` is negative.

    Example:
        >>> from hf_align.feedback import RewardJudge
        >>> def brevity(prompts, responses):
        ...     return [-float(len(response)) for response in responses]
        >>> judge = RewardJudge(brevity, tie_band=2)
        >>> [judgement] = judge.compare(["Say hello."], ["Hello!"], ["Good morning to all of you!"])
        >>> judge.name, judgement.preference
        ('brevity', 1.0)
    """

    def __init__(self, reward: Any, name: str | None = None, *, tie_band: float | None = None) -> None:
        check_tie_band(tie_band)
        self.reward, self.tie_band = open_reward(reward), tie_band
        self.log_odds = log_odds_of(self.reward)
        self.name = name or ", ".join(part.name for part in self.reward.members)

    def compare(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
        """Judge `[N]` pairs of responses to `[N]` prompts in one call of the reward, which gets each response once.

        Raises:
            UserError: The reward fails, or doesn't return finite numbers.
        """
        if not prompts:
            return []
        places: dict[tuple[str, str], int] = {}
        asked: list[Side] = []
        compared = torch.empty(len(prompts), 2, dtype=torch.long)
        for row, (prompt, *pair) in enumerate(zip(prompts, firsts, seconds, strict=True)):
            for column, response in enumerate(map(text_of, pair)):
                key = (repr(prompt), response)
                if key not in places:
                    places[key] = len(asked)
                    asked.append(prompt)
                compared[row, column] = places[key]
        scores = self.reward(asked, [response for _, response in places]).double()
        difference = scores[compared[:, 0]] - scores[compared[:, 1]]
        if self.tie_band is None:
            preferences = (difference * self.log_odds).sigmoid()
        else:
            preferences = torch.where(difference.abs() <= self.tie_band, TIE, (difference > 0).double())
        return [Judgement(preference) for preference in preferences.tolist()]
