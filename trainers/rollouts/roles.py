"""The models of a run in their roles: sampling, rewarding, and scoring as the policy and as the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_align.layout.branches import Branches
from hf_align.models.policy import ReferenceHead
from hf_align.models.reference import Reference
from hf_align.models.runner import LayoutRunner
from hf_align.models.value import PolicyWithValueHead
from hf_align.rewards import Reward
from hf_align.rollouts import Engine, Response, sample_responses
from hf_align.trainers.rollouts.config import RolloutConfig
from hf_align.trainers.rollouts.data import Row


@dataclass(frozen=True)
class ModelRoles:
    """Roles played by the models of a run.

    Attributes:
        model: The policy as used in the training step.
        frozen: The reference.
        reward: The reward, if there is one.
        engine: The sampling engine.
        tokenizer: The policy's.
        runner: Calls models on branches, according to the run's options.
    """

    model: nn.Module
    frozen: Reference
    reward: Reward | None
    engine: str | Engine
    tokenizer: PreTrainedTokenizerBase
    runner: LayoutRunner

    def sample(self, rows: list[Row], num_samples: int, seed: int) -> list[Response]:
        """Sample responses to the rows' prompts, prompt by prompt."""
        return self._sample(self.model, rows, num_samples, seed)

    def sample_reference(self, rows: list[Row], num_samples: int, seed: int) -> list[Response]:
        """Sample as `sample` does, from the reference; from where it started, if it moves and `keeps_start`."""
        with self.frozen.scored_as(self.model, start=self.frozen.keeps_start) as scorer:
            return self._sample(scorer, rows, num_samples, seed)

    def _sample(self, model: nn.Module, rows: list[Row], num_samples: int, seed: int) -> list[Response]:
        config: RolloutConfig = self.runner.args
        with self.runner.accelerator.autocast():  # as in the scoring pass
            return sample_responses(
                self.runner.accelerator.unwrap_model(model),
                self.tokenizer,
                [row["prompt_ids"] for row in rows],
                num_samples=num_samples,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                stop_strings=config.stop_strings,
                generator_seed=seed,
                engine=self.engine,
            )

    def policy(self, branches: Branches) -> dict[str, Tensor]:
        """Give logps, entropy and, with a value head, values of the batch's tokens, `[N]` each."""
        # A separate context: older torch reuses casts of trained weights that were made without gradients.
        with self.runner.accelerator.autocast():
            return self.runner.run(self.model, branches, temperature=self.runner.args.temperature, return_entropy=True)[
                0
            ]

    def reference(self, branches: Branches) -> Tensor:
        """Give the reference's log-probs of the batch's tokens, `[N]`."""
        with self.runner.accelerator.autocast():
            return self._run_reference(branches, "logps")

    def start(self, branches: Branches) -> Tensor:
        """Give the log-probs `[N]` of the reference before it moved, if it `keeps_start`."""
        with self.runner.accelerator.autocast():
            return self._run_reference(branches, "logps", start=True)

    def reference_head(self, branches: Branches) -> ReferenceHead:
        """Give the reference's hidden states and LM head for the batch, for the exact KL from it."""
        states = self._run_reference(branches, "states", return_states=True)
        return ReferenceHead(states, self.frozen.module, self.frozen.adapter)

    @torch.no_grad()
    def _run_reference(self, branches: Branches, name: str, *, start: bool = False, **options: Any) -> Tensor:
        with self.frozen.scored_as(self.model, start=start) as scorer:
            if isinstance(self.runner.accelerator.unwrap_model(scorer), PolicyWithValueHead):
                options["return_values"] = False
            output, _ = self.runner.run(scorer, branches, temperature=self.runner.args.temperature, **options)
        return output[name] if isinstance(output, dict) else output
