"""Modules of decoder layers that a patch may change, recognised by their parts and by their outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from types import MethodType
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_align.acceleration.shared import Shared, Undo


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Undo:
    """Let `module(...)` compute `forward(module, ...)`; the undo leaves a forward that others set in the meantime."""
    ours = MethodType(forward, module)
    module.forward = ours  # type: ignore[method-assign]

    def undo() -> None:
        if vars(module).get("forward") is ours:
            del module.forward

    return undo


def in_decoder_layers(
    model: nn.Module,
    changed: Shared,
    looks_right: Callable[[Any], bool],
    computes_right: Callable[[Any], bool],
    replaced: Collection[str] = (),
) -> dict[nn.Module, GradientCheckpointingLayer]:
    """Modules of one kind in a model's decoder layers, each with its layer.

    Args:
        model: A transformers or PEFT model, or a wrapper of one.
        changed: Modules that already have our forward; a module whose forward others replaced is left out.
        looks_right: Whether a module has the kind's parts.
        computes_right: Whether it computes as the kind does; called once for modules with equal settings.
        replaced: Names of children that `computes_right` replaces, whose settings therefore don't count.
    """
    layer_of: dict[nn.Module, GradientCheckpointingLayer] = {}
    verdicts: dict[Hashable, bool] = {}
    for layer in model.modules():
        if not isinstance(layer, GradientCheckpointingLayer):
            continue
        for module in layer.modules():
            right = module in changed
            if not right and "forward" not in vars(module) and looks_right(module):
                kind = _settings(module, replaced)
                if kind not in verdicts:
                    verdicts[kind] = computes_right(module)
                right = verdicts[kind]
            if right:
                layer_of[module] = layer
    return layer_of


def _settings(module: nn.Module, but: Collection[str] = ()) -> Hashable:
    """Settings that determine a module's result besides its weights; other than plain values count by identity."""
    values = {
        name: value if isinstance(value, bool | int | float | str | None) else id(value)
        for name, value in vars(module).items()
        if not name.startswith("_")
    }
    children = ((name, _settings(child)) for name, child in module.named_children() if name not in but)
    return type(module), *values.items(), *children
