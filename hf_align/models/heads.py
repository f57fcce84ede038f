"""Heads on a language model's hidden states, and how these are pooled."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from hf_align.layout.branches import Branches

HEADS: dict[str, Callable[[int, bool], nn.Module]] = {
    "linear": lambda size, bias: nn.Linear(size, 1, bias=bias),
    "mlp": lambda size, bias: nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=bias)),
}
"""Heads by name: from the hidden size and whether the last layer has a bias to a module `[., d] -> [., 1]`."""


def new_head_module(kind: str, size: int, device: torch.device, *, zero: bool = False) -> nn.Module:
    """Make a float32 head with weights from N(0, 1/sqrt(d + 1)), so that scores start near unit size.

    Args:
        kind: One of `HEADS`.
        size: Hidden size d of the model.
        device: Where to put it.
        zero: Start with 0 for everything: the last layer has a bias and is zero, as value heads are.
    """
    head = HEADS[kind](size, zero)
    layers = linear_layers(head)
    for layer in layers:
        if zero and layer is layers[-1]:
            nn.init.zeros_(layer.weight)
        else:
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features + 1))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return head.to(device)


def pool(hidden: Tensor, branches: Branches, pooling: str) -> Tensor:
    """One hidden state for each response: `[R, T, d]` -> `[S, d]`. Padding never counts, whatever side it is on."""
    flat = hidden.flatten(0, 1)
    if pooling == "last":
        return flat[branches.last]
    positions, real = branches.members()
    states = flat[positions]
    if pooling == "first":
        return states[:, 0]
    if pooling == "mean":
        return (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    return states.masked_fill(~real[..., None], -torch.inf).amax(1)


def linear_layers(head: nn.Module) -> list[nn.Linear]:
    """The linear layers of a head, the first one first."""
    return [module for module in _trained(head).modules() if isinstance(module, nn.Linear)]


def head_dtype(head: nn.Module) -> torch.dtype:
    """The dtype in which a head computes."""
    return next(_trained(head).parameters()).dtype


def _trained(head: nn.Module) -> nn.Module:
    """The head that peft trains: it keeps the untrained one, maybe in 16 bits, beside that."""
    if isinstance(head, ModulesToSaveWrapper) and head.active_adapters:
        return head.modules_to_save[head.active_adapters[0]]
    return head
