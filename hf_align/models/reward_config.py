"""Settings of a reward model: how it pools and which head it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hf_align.errors import UserError
from hf_align.models.heads import HEADS


@dataclass(frozen=True)
class RewardModelConfig:
    """Head and pooling of a reward model.

    Attributes:
        pooling: The scored hidden state: "last" real token (default), "mean" or "max" over prompt and response, or
            "first" token (for bidirectional models).
        head: "linear" (default) or "mlp" (one hidden layer, tanh). Weights start at N(0, 1/sqrt(d + 1)).

    A linear head on the last token equals `AutoModelForSequenceClassification`; the others need hf_align.

    Example:
        >>> from hf_align import RewardModel, RewardModelConfig
        >>> RewardModelConfig().is_plain
        True
        >>> config = RewardModelConfig(pooling="mean", head="mlp")
        >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct", config)
        >>> model.reward_config.is_plain  # it needs hf_align
        False
    """

    pooling: Literal["last", "mean", "max", "first"] = "last"
    head: Literal["linear", "mlp"] = "linear"

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("pooling", self.pooling, ("last", "mean", "max", "first")),
            ("head", self.head, tuple(HEADS)),
        ):
            if value not in choices:
                raise UserError(f"RewardModelConfig.{name} is {value!r}; use one of {', '.join(choices)}.")

    @property
    def is_plain(self) -> bool:
        """Whether plain transformers computes the same scores."""
        return self == RewardModelConfig()
