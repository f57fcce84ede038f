"""Rollouts: responses of one process with everything needed for their updates, kept between steps and in checkpoints.

Notation: S responses, T tokens of the longest response, B responses per micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_align.layout.branches import Branches, build_branches
from hf_align.rewards import NonFiniteReward


@dataclass
class Rollout:
    """Responses in micro-batch order, prompt by prompt, with per-token values. Trainers add what they need.

    Attributes:
        prompt_ids: S prompts, repeated for each of their responses.
        response_ids: S responses.
        finished: `[S]` whether the policy ended the response; otherwise the length limit did.
        scores: `[S]` raw scores of the reward.
        num_samples: Number of adjacent responses to the same prompt.
        stopped: Whether its updates were stopped early.
        tokens: `[S, T]` each of `PER_TOKEN`, 0 after a response's end; old_logps are those of the policy that sampled
            the rollout.
        nonfinite: Names of its values that aren't finite on some process; then it is `stopped`.
        reward_error: The reward's error about a score that isn't finite.
        first_output: The policy's output for the first micro-batch, with graph, from scoring until training uses it.
            Not saved: checkpoints are written after steps.
    """

    PER_TOKEN: ClassVar[tuple[str, ...]] = ("old_logps", "ref_logps", "entropy")

    prompt_ids: list[list[int]]
    response_ids: list[list[int]]
    finished: Tensor
    scores: Tensor
    num_samples: int
    stopped: bool = False
    tokens: dict[str, Tensor] = field(default_factory=dict)
    nonfinite: tuple[str, ...] = ()
    reward_error: NonFiniteReward | None = None
    first_output: dict[str, Tensor] | None = field(default=None, repr=False)

    def rejected(self, nonfinite: Sequence[str]) -> Self:
        """The same responses with zeros for numbers, which no step is to train on: they may be saved."""
        zeros = {name: torch.zeros(self.mask.shape) for name in self.PER_TOKEN}
        scores = torch.zeros_like(self.scores)
        return replace(self, scores=scores, tokens=zeros, first_output=None, stopped=True, nonfinite=tuple(nonfinite))

    @property
    def lengths(self) -> Tensor:
        """`[S]` tokens of each response."""
        return torch.tensor([len(ids) for ids in self.response_ids])

    @property
    def mask(self) -> Tensor:
        """`[S, T]` bool, true at response tokens."""
        lengths = self.lengths
        return torch.arange(int(lengths.max())) < lengths[:, None]

    def further(self) -> dict[str, Tensor]:
        """What a trainer's rollouts hold besides, to be saved under these names."""
        return {}

    @classmethod
    def read_further(cls, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Arguments of the constructor, from what `further` gave."""
        return {}

    def branches(self, rows: slice, *, pad_token_id: int, row_tokens: int | None) -> Branches:
        """The rows' responses laid out for the model; those to the same prompt share it."""
        prompts, responses = self.prompt_ids[rows], self.response_ids[rows]
        together = math.gcd(len(responses), self.num_samples)
        documents = [
            (prompts[start], responses[start : start + together]) for start in range(0, len(responses), together)
        ]
        return build_branches(documents, pad_token_id=pad_token_id, row_tokens=row_tokens)

    def flat(self, name: str, rows: slice) -> Tensor:
        """Values of the rows' N tokens: `[N]`, in the order of `Branches.targets`."""
        return self.tokens[name][rows][self.mask[rows]]

    def spread(self, flat: Tensor) -> Tensor:
        """`[S, T]` from the values of all tokens in order."""
        mask = self.mask
        return torch.zeros(mask.shape).masked_scatter(mask, flat.float().cpu())

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file."""
        tensors = {"finished": self.finished, "scores": self.scores, **self.tokens}
        for name, ids in (("prompt", self.prompt_ids), ("response", self.response_ids)):
            tensors[f"{name}_lengths"] = torch.tensor([len(row) for row in ids])
            tensors[f"{name}_ids"] = torch.tensor([token for row in ids for token in row])
        tensors |= self.further()
        tensors["num_samples"], tensors["stopped"] = torch.tensor(self.num_samples), torch.tensor(self.stopped)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved rollout."""
        tensors = load_file(path)
        ids = {}
        for name in ("prompt", "response"):
            parts = tensors[f"{name}_ids"].split(tensors[f"{name}_lengths"].tolist())
            ids[name] = [part.tolist() for part in parts]
        return cls(
            prompt_ids=ids["prompt"],
            response_ids=ids["response"],
            finished=tensors["finished"],
            scores=tensors["scores"],
            num_samples=int(tensors["num_samples"]),
            stopped=bool(tensors["stopped"]),
            tokens={name: tensors[name] for name in cls.PER_TOKEN},
            **cls.read_further(tensors),
        )
