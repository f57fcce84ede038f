"""Weights cast once, and contiguous hidden states, while responses are sampled."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from hf_align.acceleration.shared import Shared, Undo

_CAST, _CONTIGUOUS = Shared(), Shared()


def cast_once(model: nn.Module) -> Undo:
    """Under autocast, hold float32 weights of linear layers in autocast's dtype until undone.

    Autocast caches casts of trained weights only, and only those it makes itself: a frozen base and the adapters (see
    `hf_align.acceleration.lora`) would be cast again for each token. The results are the same.
    """
    return _CAST.join(_cast_linears(model), _cast)


def _cast(module: nn.Linear) -> Undo:
    weight = cast(nn.Parameter, module.weight)
    module.weight = nn.Parameter(weight.to(torch.get_autocast_dtype(weight.device.type)), requires_grad=False)
    return lambda: setattr(module, "weight", weight)


def contiguous_states(model: Any) -> Undo:
    """Give the LM head contiguous hidden states until undone.

    The last column of a prompt's hidden states is a strided view, which torch multiplies as a batch with a copy of the
    head's weight per row: 900 MB for 16 prompts and a vocabulary of 49,152, and 100 times as slow in bfloat16.
    """
    head = model.get_output_embeddings()
    return _CONTIGUOUS.join([] if head is None else [head], _make_contiguous)


def _make_contiguous(head: nn.Module) -> Undo:
    return head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]) if args else None).remove


def _cast_linears(model: nn.Module) -> list[Any]:
    """The layers whose weights autocast casts on every call; quantised ones are another class."""
    return [
        module
        for module in model.modules()
        if module in _CAST
        or (
            type(module) is nn.Linear
            and module.weight.dtype == torch.float32
            and not module.weight.is_meta
            and torch.is_autocast_enabled(module.weight.device.type)
        )
    ]
