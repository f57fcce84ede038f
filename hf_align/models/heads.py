"""Heads on a language model's hidden states."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from hf_align.models.reward_config import EMBEDDING, RewardModelConfig

HEADS: dict[str, Callable[[int, bool], nn.Module]] = {
    "linear": lambda size, bias: nn.Linear(size, 1, bias=bias),
    "mlp": lambda size, bias: nn.Sequential(
        nn.Linear(size, size // 2), nn.ReLU(), nn.Dropout(0.1), nn.Linear(size // 2, 1, bias=bias)
    ),
}
"""Heads by name: functions of the hidden size and of a last layer's bias that make a module `[., d] -> [., 1]`."""


class RewardHead(nn.Module):
    """The reward and what else a reward model predicts, from one pooled state: `[., d]` -> `[., C]`.

    Column 0 is the reward; those of the tasks and of the projection follow (see `RewardModelConfig.split`).

    Args:
        config: What to compute.
        size: Hidden size d.

    Attributes:
        attention: Scores a token's state for pooling, `[., d]` -> `[., 1]`; None with other heads.
        reward: `[., d]` -> `[., 1]`.
        tasks: One linear layer for all tasks, their columns in order; None without tasks.
        projection: `[., d]` -> `[., 128]`; None without.
    """

    def __init__(self, config: RewardModelConfig, size: int):
        super().__init__()
        attends, columns = config.head == "attention", sum(config.columns.values())
        score = nn.Sequential(nn.Linear(size, size // 4), nn.Tanh(), nn.Linear(size // 4, 1, bias=False))
        project = nn.Sequential(nn.Linear(size, 2 * EMBEDDING), nn.ReLU(), nn.Linear(2 * EMBEDDING, EMBEDDING))
        self.attention = score if attends else None
        self.reward = HEADS["linear" if attends else config.head](size, False)
        self.tasks = nn.Linear(size, columns) if columns else None
        self.projection = project if config.projection else None

    def forward(self, states: Tensor) -> Tensor:
        """All outputs for pooled states."""
        parts = (part for part in (self.reward, self.tasks, self.projection) if part is not None)
        return torch.cat([part(states) for part in parts], dim=-1)


def new_reward_head(config: RewardModelConfig, size: int, device: torch.device) -> nn.Module:
    """A reward model's new float32 head, in evaluation mode: one linear layer if that is all, else a `RewardHead`."""
    head = HEADS["linear"](size, False) if config.has_plain_head else RewardHead(config, size)
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
