"""KL of a policy from the start of its hybrid run, estimated on its own responses to a few prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from hf_align.collators import encode_prompts
from hf_align.collators.rows import Side
from hf_align.data.parts import digest
from hf_align.errors import UserError
from hf_align.evaluation.continuations import sample_continuations
from hf_align.evaluation.writing import token_logps
from hf_align.losses.kl import estimate_kl
from hf_align.models.adapters import active_adapter
from hf_align.models.randomness import random_state_kept
from hf_align.models.wrapper import unwrapped
from hf_align.progress import Silent
from hf_align.trainers.hybrid.config import HybridConfig
from hf_align.trainers.hybrid.plan import Planned

BATCH = 32
"""Prompts answered together."""


def probe_prompts(stages: Sequence[Planned], datasets: Iterable[Any], count: int) -> list[Side]:
    """The first different prompts of the first data set that has some: of these, or else the stages' held-out rows.

    Raises:
        UserError: None has a column `prompt`.
    """
    of_stages = [each.rows.get(name) for name in ("eval_dataset", "train_dataset") for each in stages]
    candidates = [*datasets, *of_stages]
    for data in candidates:
        found: dict[str, Side] = {}
        if data is None or isinstance(data, Mapping):
            continue
        for row in data:
            if row.get("prompt") is None:
                break
            found.setdefault(digest(row["prompt"]), row["prompt"])
            if len(found) == count:
                break
        if found:
            return list(found.values())
    raise UserError(
        "the KL from the start is limited, and no data set has a column prompt; give an eval_dataset with it."
    )


class Probe:
    """Measures the KL from the start, with the same prompts and random numbers each time.

    k3 estimates of the tokens (Schulman 2020), summed over a response and averaged over the prompts: of KL(policy ||
    start) unbiased, and never negative.

    Args:
        prompts: `[P]` prompts.
        max_new_tokens: Maximum tokens of a response.
        seed: Seed of the sampling.
    """

    def __init__(self, prompts: list[Side], max_new_tokens: int, seed: int) -> None:
        self.prompts, self.max_new_tokens, self.seed = prompts, max_new_tokens, seed

    def kl(self, trainer: Any, stage: Planned, start: str | None) -> float:
        """The KL of a stage's policy in nats per response.

        Args:
            trainer: The stage's trainer.
            stage: The stage.
            start: The adapter under which the stage's model is the start, where that isn't its reference.
        """
        return self.measure(trainer, lambda model: _as_start(trainer, stage, model, start))

    @torch.no_grad()
    def measure(self, trainer: Any, as_start: Callable[[nn.Module], AbstractContextManager[nn.Module]]) -> float:
        """The KL of a trainer's policy in nats per response.

        Args:
            trainer: The trainer.
            as_start: Gets the policy; a context that yields the module that computes as the start inside it.
        """
        model = cast(nn.Module, unwrapped(trainer.accelerator.unwrap_model(trainer.model), keep_peft=True))
        tokenizer = cast(PreTrainedTokenizerBase, trainer.processing_class)
        with random_state_kept(trainer.args.device), trainer.accelerator.autocast():
            written = sample_continuations(
                model,
                tokenizer,
                self.prompts,
                max_new_tokens=self.max_new_tokens,
                batch_size=BATCH,
                seed=self.seed,
            )
            ids = encode_prompts(tokenizer, self.prompts, "prompts")
            encoded = [(prompt, each.token_ids) for prompt, each in zip(ids, written, strict=True)]
            logps = token_logps(model, encoded, tokenizer, Silent(), "policy")
            with as_start(model) as other:
                start_logps = token_logps(other, encoded, tokenizer, Silent(), "start")
        sums = [
            float(estimate_kl(torch.from_numpy(ours), torch.from_numpy(theirs), kind="k3").sum())
            for ours, theirs in zip(logps, start_logps, strict=True)
        ]
        return sum(sums) / len(sums)


@contextmanager
def _as_start(trainer: Any, stage: Planned, model: nn.Module, start: str | None) -> Iterator[nn.Module]:
    """Yield the module that computes as the start inside this context."""
    hand_over = stage.hand_over
    if isinstance(model, PeftModel) and hand_over.start in ("off", "copy"):
        with active_adapter(model, start):
            yield model
        return
    reference = trainer.reference
    if reference.module is not None:
        yield reference.module.model
        return
    with active_adapter(model, reference.adapter):
        yield model


def make_probe(args: HybridConfig, stages: Sequence[Planned], data: Sequence[Any]) -> Probe | None:
    """The probe of a run that limits the KL from its start, or of which a stage does; None for any other.

    Args:
        args: Options of the run.
        stages: Its stages.
        data: Rows whose prompts are taken where stages have none.
    """
    if args.kl_budget is None and not any(each.until and each.until.kl for each in stages):
        return None
    return Probe(probe_prompts(stages, data, args.kl_prompts), args.kl_max_new_tokens, args.seed)
