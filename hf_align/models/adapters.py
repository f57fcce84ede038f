"""Switching a PEFT model's adapters without the side effects of peft's own switches.

`PeftModel.set_adapter` and leaving `disable_adapter` also change `requires_grad`, which silently freezes adapters.
`active_adapter` changes what a forward computes and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

REFERENCE_ADAPTER = "reference"


@contextmanager
def active_adapter(model: nn.Module, name: str | None) -> Iterator[None]:
    """Run `model` with the adapter `name`, or with none (`None`: the base model), and then as before.

    Args:
        model: A model that contains peft layers; `requires_grad` of its parameters is never touched.
        name: The adapter to use.
    """
    saved: list[tuple[nn.Module, object, bool]] = []
    for module in model.modules():
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            saved.append((module, module._active_adapter, module._disable_adapters))
            module._disable_adapters = name is None
            if name is not None:
                module._active_adapter = [name]
    try:
        yield
    finally:
        for module, adapters, disabled in saved:
            module._active_adapter, module._disable_adapters = adapters, disabled  # type: ignore[assignment]


def adapter_name(model: PeftModel) -> str:
    """The one active adapter of a PEFT model."""
    return cast(str, model.active_adapters[0])


def add_frozen_copy(model: PeftModel, source: str, target: str = REFERENCE_ADAPTER) -> None:
    """Add `target`, a frozen copy of the adapter `source`: the reference for a policy that comes with an adapter."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.add_adapter(target, model.peft_config[source])
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parts = name.split(".")
            if target in parts:
                twin = ".".join(source if part == target else part for part in parts)
                parameter.copy_(parameters[twin])
            parameter.requires_grad_(name in trainable)


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability in `model`, LoRA's included, to zero."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "dropout_p"):  # attention reads it as a number
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def float32_trainable(model: nn.Module) -> None:
    """Keep what is trained in float32: bfloat16 weights silently stop moving at a preference learning rate."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
