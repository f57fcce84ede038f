"""Callbacks that end a training at a limit of its budget, and measure what it used."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_align.collators.rows import Side
from hf_align.experiments.benchmark.config import Budget
from hf_align.models.adapters import active_adapter
from hf_align.trainers.hybrid.probe import Probe
from hf_align.trainers.hybrid.until import Criterion, SpendsKL

KL_SEED = 0
"""Seed of the responses that a KL is measured on: the same in all runs."""


class Elapsed(Criterion):
    """Counts a training's seconds, over stops too: what a resumed run lost after its checkpoint doesn't count.

    Args:
        limit: Seconds after which it ends the training. None: it only counts.
    """

    def __init__(self, limit: float | None = None) -> None:
        super().__init__()
        self.limit, self._before, self._started = limit, 0.0, 0.0

    @property
    def seconds(self) -> float:
        """Seconds up to the last step."""
        return self.points[-1][1] if self.points else 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Don't count what happens inside this context: the benchmark's own measurements."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the checkpoint's count."""
        super().on_train_begin(args, state, control, **kwargs)
        self._before, self._started = self.seconds, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count, and end the training after the limit."""
        if torch.cuda.is_available() and self.limit is not None:
            torch.cuda.synchronize()  # a step's work may still be queued
        self.add(state.global_step, self._before + time.monotonic() - self._started, args, control)
        del self.points[:-1]

    def why_over(self) -> str | None:
        """Where the limit has passed."""
        if self.limit is None or self.seconds < self.limit:
            return None
        return f"has trained {self.seconds:.3g} of {self.limit:.3g} seconds"


def limits_of(
    budget: Budget, trainer: Any, prompts: Sequence[Side] | None, max_new_tokens: int
) -> tuple[Elapsed, SpendsKL | None]:
    """Add the callbacks of a budget to a trainer.

    Args:
        budget: The budget.
        trainer: A trainer of a policy with an adapter, where the KL is limited.
        prompts: Prompts to measure the KL on, where it is limited.
        max_new_tokens: Length limit of the responses to them.

    Returns:
        The callbacks.
    """
    elapsed, spends = Elapsed(budget.seconds), None
    if budget.kl is not None:
        assert prompts is not None
        measure = partial(_kl, trainer, Probe(list(prompts), max_new_tokens, KL_SEED), elapsed)
        spends = SpendsKL(budget.kl, budget.kl_every, 0.0, measure)
        trainer.add_callback(spends)
    trainer.add_callback(elapsed)
    return elapsed, spends


def _kl(trainer: Any, probe: Probe, elapsed: Elapsed) -> float:
    with elapsed.paused():
        return probe.measure(trainer, _without_adapter)


@contextmanager
def _without_adapter(model: nn.Module) -> Iterator[nn.Module]:
    with active_adapter(model, None):
        yield model
