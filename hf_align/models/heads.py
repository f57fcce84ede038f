"""Heads on a language model's hidden states: how they start, and their parts."""

from __future__ import annotations

import math

import torch
from peft.utils import ModulesToSaveWrapper
from torch import nn

from hf_align.models.modeling_hf_align_reward import HEADS, RewardHead, make_head
from hf_align.models.reward_config import RewardModelConfig


def new_reward_head(config: RewardModelConfig, size: int, device: torch.device) -> nn.Module:
    """A reward model's new float32 head, in evaluation mode: one linear layer if that is all, else a `RewardHead`."""
    head = make_head(size, config.head, sum(config.columns.values()), config.projection)
    return _initialised(head).to(device)


def new_value_head(kind: str, size: int, device: torch.device) -> nn.Module:
    """A value model's new float32 head, in evaluation mode; values are 0 until its last layer, with a bias, is trained.

    Args:
        kind: One of `HEADS`.
        size: Hidden size d of the model.
        device: Where to put it.
    """
    head = _initialised(HEADS[kind](size, True))
    nn.init.zeros_(linear_layers(head)[-1].weight)
    return head.to(device)


def _initialised(head: nn.Module) -> nn.Module:
    """Draw weights from N(0, 1/sqrt(n + 1)) for n inputs, so that scores start near unit scale; biases are 0."""
    for layer in linear_layers(head):
        nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features + 1))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return head.eval()  # as transformers loads models


def reward_part(head: nn.Module) -> nn.Module:
    """The part of a reward model's head that gives the reward."""
    trained = _trained(head)
    return trained.reward if isinstance(trained, RewardHead) else trained


def attention_part(head: nn.Module) -> nn.Module | None:
    """The part of a reward model's head that pools by attention; None without."""
    trained = _trained(head)
    return trained.attention if isinstance(trained, RewardHead) else None


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
