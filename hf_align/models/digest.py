"""Digests of models, under which what they computed is kept."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from hf_align.models.ensemble import members_of

SETTINGS = ("reward_config", "normalization", "method", "weights", "trim", "uncertainty_coef")
"""What identifies a reward model or ensemble besides its weights."""
SAMPLED = 1024
"""Numbers of each weight that identify a model."""


def weights_digest(model: nn.Module) -> str:
    """Digest of a model's weights (numbers of each), its adapters' scales, and a reward model's settings.

    Settings are pooling, tasks and normalisation, and an ensemble's method.
    """
    settings: list[Any] = [getattr(model, name, None) for name in SETTINGS]
    settings += [getattr(member, name, None) for member in members_of(model) for name in SETTINGS[:2]]
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            settings.append((name, module.disable_adapters, module.active_adapters, getattr(module, "scaling", None)))
    sha = hashlib.sha256(repr(settings).encode())
    for name, weight in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        sha.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        values = weight.detach().flatten()
        values = values[:: max(1, len(values) // SAMPLED)].contiguous().cpu()
        sha.update(values.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
