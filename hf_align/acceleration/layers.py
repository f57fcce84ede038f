"""Modules of decoder layers that a patch may change, told by their parts and by what they compute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from types import MethodType
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_align.acceleration.shared import Shared, Undo


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Undo:
    """Let `module(...)` compute `forward(module, ...)`; what somebody put in its place meanwhile stays."""
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
    """Modules of a kind in a model's decoder layers, each with its layer.

    Args:
        model: A transformers or PEFT model, or a wrapper of one.
        changed: Those in which our forward stands already; a forward that somebody else has replaced stays.
        looks_right: Whether a module has the kind's parts.
        computes_right: Whether it computes what the kind does; asked once of modules that are set up alike.
        replaced: Names of children that it puts others in place of, so that theirs don't count.
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
    """Settings that a module's result depends on beside its weights; no plain value counts as that very object."""
    values = {
        name: value if isinstance(value, bool | int | float | str | None) else id(value)
        for name, value in vars(module).items()
        if not name.startswith("_")
    }
    children = ((name, _settings(child)) for name, child in module.named_children() if name not in but)
    return type(module), *values.items(), *children
