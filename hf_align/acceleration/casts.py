"""Weights cast once, and contiguous states, while responses are sampled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn


@contextmanager
def cast_once(model: nn.Module) -> Iterator[None]:
    """Under autocast, hold float32 weights of linear layers in autocast's dtype for a while.

    Autocast remembers casts of trained weights only, and only of those that it casts itself: a frozen base and the
    adapters (see `hf_align.acceleration.lora`) would be cast anew for each token. The numbers are the same.
    """
    swapped: list[tuple[nn.Linear, nn.Parameter]] = []
    try:
        for module in _cast_linears(model):
            weight = cast(nn.Parameter, module.weight)
            swapped.append((module, weight))
            module.weight = nn.Parameter(weight.to(torch.get_autocast_dtype(weight.device.type)), requires_grad=False)
        yield
    finally:
        for module, weight in swapped:
            module.weight = weight


@contextmanager
def contiguous_states(model: Any) -> Iterator[None]:
    """Give the LM head contiguous hidden states for a while.

    The last column of a prompt's states is a strided view, for which torch multiplies in batches on a copy of the
    head's weight for each row: 900 MB for 16 prompts and a vocabulary of 49,152, 100 times the time in bfloat16.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]) if args else None)
    try:
        yield
    finally:
        handle.remove()


def _cast_linears(model: nn.Module) -> list[nn.Linear]:
    """The layers whose weights autocast casts anew each time; quantised ones are another class."""
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and module.weight.dtype == torch.float32
        and not module.weight.is_meta
        and torch.is_autocast_enabled(module.weight.device.type)
    ]
