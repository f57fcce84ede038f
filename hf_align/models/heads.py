"""Heads on a language model's hidden states, and how these are pooled."""

from __future__ import annotations

import math

import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers.utils import logging

from hf_align.layout.branches import Branches

logger = logging.get_logger(__name__)


def new_head_module(hidden_size: int, kind: str, device: torch.device) -> nn.Module:
    """A float32 reward head with weights from N(0, 1/sqrt(d + 1)), so that scores start near unit size."""
    if kind == "linear":
        head: nn.Module = nn.Linear(hidden_size, 1, bias=False)
    else:
        head = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1, bias=False))
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features + 1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return head.to(device)


def pool(hidden: Tensor, branches: Branches, pooling: str) -> Tensor:
    """One hidden state for each response: `[R, T, d]` -> `[D * K, d]`. Padding never counts, whatever side it is on."""
    flat = hidden.flatten(0, 1)
    if pooling == "last":
        return flat[branches.last.flatten()]
    positions, real = branches.members()
    states = flat[positions]
    if pooling == "first":
        return states[:, 0]
    if pooling == "mean":
        return (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    return states.masked_fill(~real[..., None], -torch.inf).amax(1)


def head_dtype(head: nn.Module) -> torch.dtype:
    """The dtype in which a head computes: peft keeps the untrained head, maybe in 16 bits, beside the one it trains."""
    if isinstance(head, ModulesToSaveWrapper) and head.active_adapters:
        head = head.modules_to_save[head.active_adapters[0]]
    return next(head.parameters()).dtype
