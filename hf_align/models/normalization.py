"""Rewards with mean 0 and standard deviation 1 on a named reference set: a gain in the head, an offset beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, pstdev
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from hf_align.errors import UserError
from hf_align.models.heads import linear_layers, reward_part

SMALLEST = 1e-6
"""Smallest standard deviation, as a share of the largest score: less is the rounding of equal scores."""


@dataclass(frozen=True)
class Normalization:
    """What a reward model's scores were on the set that they are normalised on.

    A score is (raw - mean) / std, where raw is what the head gave before. The head has no bias: 1 / std is multiplied
    into its last layer, and -mean / std is added to what it gives.

    Attributes:
        name: Name of the set.
        rows: Its rows.
        mean: Mean of the raw scores of its responses.
        std: Their standard deviation, over all of them (not of a sample).

    Example:
        >>> from hf_align.models.normalization import Normalization
        >>> Normalization("ORG/pairs, train", rows=1000, mean=3.0, std=2.0).offset
        -1.5
    """

    name: str
    rows: int
    mean: float
    std: float

    @property
    def offset(self) -> float:
        """What is added to the head's output."""
        return -self.mean / self.std

    def to_json(self) -> dict[str, Any]:
        """The entry in reward_config.json, with the offset."""
        return {**asdict(self), "offset": self.offset}

    @classmethod
    def from_json(cls, values: Any) -> Normalization:
        """Make one from the result of `to_json`.

        Raises:
            UserError: It isn't one.
        """
        kinds = {"name": str, "rows": int, "mean": float, "std": float}
        if not isinstance(values, dict) or set(values) != {*kinds, "offset"}:
            raise UserError(f"normalization is {values!r}; it has name, rows, mean, std and offset")
        numbers = {name: values[name] for name in kinds if name != "name"}
        real = all(
            isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers.values()
        )
        if not isinstance(values["name"], str) or not real or values["std"] <= 0:
            raise UserError(f"normalization is {values!r}; name is a text, the others are finite numbers, std above 0")
        return cls(values["name"], int(values["rows"]), float(values["mean"]), float(values["std"]))


def normalized(scores: Sequence[float], name: str, rows: int, before: Normalization | None) -> Normalization:
    """The normalisation after which `scores` have mean 0 and standard deviation 1.

    Args:
        scores: Scores of all responses of the set.
        name: Its name.
        rows: Its rows.
        before: The normalisation that the scores have.

    Raises:
        UserError: All scores are equal, or one isn't finite.
    """
    if not all(map(math.isfinite, scores)):
        raise UserError(f"Scores of {name} are NaN or infinite, so they can't be normalised.")
    mean, std = (fmean(scores), pstdev(scores)) if scores else (0.0, 0.0)
    if std <= SMALLEST * max(map(abs, scores), default=0.0) or std == 0:
        raise UserError(
            f"All {len(scores)} scores of {name} are equal, so they can't be normalised; name a set of different "
            "responses, or train the model first."
        )
    raw = before or Normalization(name, rows, 0.0, 1.0)
    return Normalization(name, rows, raw.mean + raw.std * mean, raw.std * std)


@torch.no_grad()
def scale_reward(head: nn.Module, gain: float) -> None:
    """Multiply what a reward model's head gives for the reward, in its last layer; under peft in the trained copy.

    Raises:
        UserError: The head has an adapter in it.
    """
    if any(isinstance(module, BaseTunerLayer) for module in head.modules()):
        raise UserError(
            "The reward head has an adapter in it (target_modules names it), and a gain can't be folded into both; "
            "merge the model first (merge_and_save), or leave the head out of target_modules."
        )
    last = linear_layers(reward_part(head))[-1]
    last.weight.data = last.weight.data.float() * gain  # not rounded to the model's dtype
