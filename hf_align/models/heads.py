"""Heads on a language model's hidden states, and pooling."""

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
"""Heads by name: functions of the hidden size and of a last layer's bias that make a module `[., d] -> [., 1]`."""


def new_head_module(kind: str, size: int, device: torch.device, *, zero: bool = False) -> nn.Module:
    """Make a float32 head with weights from N(0, 1/sqrt(d + 1)), so that scores start near unit scale.

    Args:
        kind: One of `HEADS`.
        size: Hidden size d of the model.
        device: Where to put it.
        zero: Start with output 0: the last layer has a bias and is zero, as in value heads.
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
    """One hidden state per response: `[R, T, d]` -> `[S, d]`. Padding on either side never counts."""
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
    """The linear layers of a head, in order."""
    return [module for module in _trained(head).modules() if isinstance(module, nn.Linear)]


def head_dtype(head: nn.Module) -> torch.dtype:
    """The dtype in which a head computes."""
    return next(_trained(head).parameters()).dtype


def _trained(head: nn.Module) -> nn.Module:
    """The trained head under peft, which also keeps the untrained one, possibly in 16 bits."""
    if isinstance(head, ModulesToSaveWrapper) and head.active_adapters:
        return head.modules_to_save[head.active_adapters[0]]
    return head
