"""Rows with people's ratings, and judges of known faults."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_align.feedback import FunctionJudge, RewardJudge
from hf_align.rewards import Judgement

VOTES = 9


class Planted:
    """Pairs of responses of known quality, whose lengths have nothing to do with it.

    Attributes:
        rows: Pairs with every rating, people's choice first.
        quality: By response.
    """

    def __init__(self, pairs: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.rows: list[dict[str, Any]] = []
        self.quality: dict[str, float] = {}
        for number in range(pairs):
            rated = []
            for side in ("a", "b"):
                text = f"{number} {side} " + "w" * int(rng.integers(5, 60))
                self.quality[text] = float(rng.normal(0, 1.5))
                rated.append((text, (self.quality[text] + rng.normal(0, 1, VOTES)).round(2).tolist()))
            (chosen, more), (rejected, less) = sorted(rated, key=lambda each: -np.mean(each[1]))
            row = {"prompt": f"p{number}", "chosen": chosen, "rejected": rejected}
            self.rows.append({**row, "chosen_ratings": more, "rejected_ratings": less})

    def judge(self, noise: float, seed: int = 1) -> RewardJudge:
        """One that knows the quality, but for noise of this deviation; infinite: it knows nothing."""
        rng = np.random.default_rng(seed)
        drawn = {text: rng.normal() for text in self.quality}
        scores = {
            text: drawn[text] if noise == float("inf") else value + noise * drawn[text]
            for text, value in self.quality.items()
        }
        return RewardJudge(lambda prompts, responses: [scores[response] for response in responses], "knowing")


ALWAYS_A = FunctionJudge(lambda prompt, first, second: "first", "always A")


def length(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(response)) for response in responses]


class Unasked:
    """A judge that prefers what is given first and doesn't ask in both orders."""

    name = "unasked"

    def compare(self, prompts: Any, firsts: Any, seconds: Any) -> list[Judgement]:
        return [Judgement(1.0) for _ in prompts]
