"""Seconds of an optimizer step, by part, from its counted kernels and what a device makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from hf_align.algorithms import Rows
from hf_align.layout.branches import Document
from hf_align.planning.device import Device
from hf_align.planning.lengths import is_rollout, longest_batch
from hf_align.planning.memory import Needs, lay_out, setup_of, wrapper_of
from hf_align.planning.other_models import Source, has_reference
from hf_align.planning.outline import Outline
from hf_align.planning.phases import update
from hf_align.planning.work import Pass, Work, step_work
from hf_align.trainers.data import spread_rows
from hf_align.trainers.optimizers import optimizer_memory

ALIKE = 1.05
"""Batches whose longest is at most so many times the typical one in tokens are timed by the longest."""


class Speed(Protocol):
    """What a device makes of a piece of work."""

    def seconds(self, work: Work) -> float:
        """Seconds that it takes."""
        ...

    def described(self) -> str:
        """Rates, and where they are from."""
        ...


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step.

    Attributes:
        parts: By part: "rollout", "scoring", "reference", "update", "optimizer"; of a rollout the step's share.
        notes: What was assumed.
    """

    parts: dict[str, float]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return sum(self.parts.values())


def step_time(
    kind: Rows, source: Source, args: Any, model: Outline, documents: Sequence[Document], device: Device, needs: Needs
) -> StepTime:
    """Seconds of an optimizer step on a typical micro-batch.

    Args:
        kind: Kind of rows that the algorithm trains on.
        source: The recipe's `model`, `quantization` and so on, its reward resolved.
        args: The trainer's config.
        model: The outline of the trained model.
        documents: The rows.
        device: The device planned for.
        needs: What the run needs, whose traces of the longest rows stand for rows that are all alike.
    """
    wrapper = wrapper_of(source, args, model)
    work, rows = dict(needs.work), args.per_device_train_batch_size
    typical, longest = typical_batch(args, documents, rows), longest_batch(args, documents, rows)
    if _tokens(longest) > ALIKE * _tokens(typical):
        setup = setup_of(args, device, model.dtype)
        batch, full_kl = lay_out(args, wrapper, typical, needs.layout), getattr(args, "kl_kind", None) == "full"
        traced = update(setup, wrapper, batch, full_kl=full_kl)
        work |= {"update": traced.work, "forward": traced.forward}
    speed: Speed = device.speed
    parts = {name: speed.seconds(part) for name, part in _parts(source, args, work).items()}
    parts["optimizer"] = speed.seconds(optimizer_work(wrapper, args, device.kind))
    return StepTime(parts, (*_notes(source, args), f"time by {speed.described()}"))


def _parts(source: Source, args: Any, work: dict[str, Work]) -> dict[str, Work]:
    return step_work(args, work, reference=has_reference(source, args))


def typical_batch(args: Any, documents: Sequence[Document], size: int) -> list[Document]:
    """Of some micro-batches drawn over the data the one with the median of tokens, padding included."""
    some = [documents[number] for number in spread_rows(len(documents))]
    order = np.random.default_rng(0).permutation(len(some))
    count = max(1, len(longest_batch(args, documents, size)))
    batches = [[some[number] for number in order[start : start + count]] for start in range(0, len(some), count)]
    whole = [batch for batch in batches if len(batch) == count] or batches[:1]
    median = sorted(whole, key=_tokens)[len(whole) // 2]
    return longest_batch(args, median, size)


def _tokens(batch: Sequence[Document]) -> int:
    """Tokens of a batch in rows as long as its longest."""
    return len(batch) * max(len(prompt) + sum(map(len, responses)) for prompt, responses in batch)


def optimizer_work(wrapper: nn.Module, args: Any, device: str) -> Work:
    """Kernels of clipping and of the optimizer's step: a pass over weight, gradient and state each, and back."""
    weights = [weight for weight in wrapper.parameters() if weight.requires_grad]
    work = Work()
    for weight in weights:
        state = optimizer_memory(str(args.optim.value), [weight], device).state
        clipped = 12 * weight.numel() if args.max_grad_norm else 0  # read for the norm, then scaled
        work += Work({Pass(float(clipped + 12 * weight.numel() + 2 * state)): 1})
    return work


def _notes(source: Source, args: Any) -> list[str]:
    notes = []
    if is_rollout(args):
        notes.append("every response is as long as max_new_tokens allows; those that end sooner take less time")
        if source.get("reward") is None or not isinstance(source.get("reward"), str):
            notes.append("time of reward functions and of judges that write isn't counted")
    if getattr(args, "precompute_ref_log_probs", False):
        notes.append("the pass that precomputes the reference's log-probs isn't counted")
    if args.world_size > 1:
        notes.append("time of gradients between processes isn't counted")
    return notes
