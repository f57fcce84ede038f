"""Weights cast once, and contiguous states, while responses are sampled."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from hf_align.acceleration.shared import Shared, Undo

_CAST, _CONTIGUOUS = Shared(), Shared()


def cast_once(model: nn.Module) -> Undo:
    """Under autocast, hold float32 weights of linear layers in autocast's dtype until that is taken back.

    Autocast remembers casts of trained weights only, and only of those that it casts itself: a frozen base and the
    adapters (see `hf_align.acceleration.lora`) would be cast anew for each token. The numbers are the same.
    """
    return _CAST.join(_cast_linears(model), _cast)


def _cast(module: nn.Linear) -> Undo:
    weight = cast(nn.Parameter, module.weight)
    module.weight = nn.Parameter(weight.to(torch.get_autocast_dtype(weight.device.type)), requires_grad=False)
    return lambda: setattr(module, "weight", weight)


def contiguous_states(model: Any) -> Undo:
    """Give the LM head contiguous hidden states until that is taken back.

    The last column of a prompt's states is a strided view, for which torch multiplies in batches on a copy of the
    head's weight for each row: 900 MB for 16 prompts and a vocabulary of 49,152, 100 times the time in bfloat16.
    """
    head = model.get_output_embeddings()
    return _CONTIGUOUS.join([] if head is None else [head], _make_contiguous)


def _make_contiguous(head: nn.Module) -> Undo:
    return head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]) if args else None).remove


def _cast_linears(model: nn.Module) -> list[Any]:
    """The layers whose weights autocast casts anew each time; quantised ones are another class."""
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
