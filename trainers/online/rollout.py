"""Rollouts of online DPO: responses with the pairs of them that are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from hf_align.layout.branches import Branches, build_branches
from hf_align.trainers.rollouts.rollout import Rollout


@dataclass
class PairRollout(Rollout):
    """Responses and P pairs of them.

    Attributes:
        pairs: `[P, 2]` numbers of the chosen and the rejected response, in the order of the chosen's prompts.
        labels: `[P]` probability that the chosen one is better.
    """

    pairs: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.long))
    labels: Tensor = field(default_factory=lambda: torch.zeros(0))

    def further(self) -> dict[str, Tensor]:
        """The pairs with their labels."""
        return {"pairs": self.pairs, "labels": self.labels}

    @classmethod
    def read_further(cls, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The pairs with their labels."""
        return {"pairs": tensors["pairs"], "labels": tensors["labels"]}

    def pairs_of(self, rows: slice) -> Tensor:
        """`[P]` bool: pairs of these responses; a slice holds a prompt's responses all or not at all."""
        return (self.pairs[:, 0] >= rows.start) & (self.pairs[:, 0] < rows.stop)

    def used(self, rows: slice) -> list[int]:
        """Numbers of those of these responses that are in a pair.

        Without any, the first two: every process has a pass with gradients in every step, or none has.
        """
        return sorted({*self.pairs[self.pairs_of(rows)].flatten().tolist()}) or [rows.start, rows.start + 1]

    def branches_of(self, numbers: Sequence[int], *, pad_token_id: int, row_tokens: int | None) -> Branches:
        """These responses, in ascending order, laid out for the model; those to the same prompt share it."""
        groups = [list(group) for _, group in groupby(numbers, lambda number: number // self.num_samples)]
        documents = [(self.prompt_ids[group[0]], [self.response_ids[number] for number in group]) for group in groups]
        return build_branches(documents, pad_token_id=pad_token_id, row_tokens=row_tokens)
