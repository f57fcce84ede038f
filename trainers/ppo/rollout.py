"""PPO's rollouts: responses with advantages of their tokens and, where there is a value head, values and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_align.trainers.rollouts import rollout


@dataclass
class Rollout(rollout.Rollout):
    """Responses with everything that PPO's updates need.

    Attributes:
        kl_coef: KL coefficient of this rollout.
    """

    PER_TOKEN: ClassVar[tuple[str, ...]] = ("old_logps", "ref_logps", "values", "entropy", "advantages", "returns")

    kl_coef: float = 0.0

    def further(self) -> dict[str, Tensor]:
        """The coefficient."""
        return {"kl_coef": torch.tensor(self.kl_coef, dtype=torch.float64)}

    @classmethod
    def read_further(cls, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The coefficient."""
        return {"kl_coef": float(tensors["kl_coef"])}


@dataclass
class ValuelessRollout(Rollout):
    """Responses whose baseline is no value head."""

    PER_TOKEN: ClassVar[tuple[str, ...]] = ("old_logps", "ref_logps", "entropy", "advantages")
