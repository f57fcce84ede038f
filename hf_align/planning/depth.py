"""What a deep model takes, from traces of a few of its layers.

Layers of one kind add the same bytes and operations each, so a trace with two and with four of them says what any
number takes. A kind is what a layer is made of and how it attends: Gemma's layers with and without a window, dense
layers and those with experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from hf_align.errors import UserError
from hf_align.models.freezing import decoder_layers
from hf_align.models.wrapper import unwrapped
from hf_align.planning.trace import Measured

FEW = 2
"""Layers of each kind in the smaller trace; the larger has as many again of one kind."""


def kinds_of(model: nn.Module) -> list[Hashable] | None:
    """The kind of each decoder layer; None if the model has no list of layers."""
    try:
        layers = decoder_layers(model)
    except UserError:
        return None
    types = getattr(unwrapped(model).config.get_text_config(), "layer_types", None) or [None] * len(layers)
    return [(kind, _makeup(layer)) for kind, layer in zip(types, layers, strict=True)]


def _makeup(layer: nn.Module) -> Hashable:
    """Class, shapes and dtypes of a layer's weights, and which are trained."""
    weights = ((name, tuple(p.shape), p.dtype, p.requires_grad) for name, p in layer.named_parameters())
    return type(layer), tuple(weights)


def extrapolate(models: Sequence[nn.Module], measure: Callable[[], Measured]) -> Measured:
    """What `measure` would give with all layers of the models, which are alike and are cut together.

    Args:
        models: Models that `measure` runs; the first says which layers there are.
        measure: Traces the models as they are cut at the moment.
    """
    kinds = kinds_of(models[0])
    if kinds is None:
        return measure()
    counts = Counter(kinds)
    fewest = {kind: min(FEW, count) for kind, count in counts.items()}

    def traced(numbers: dict[Hashable, int]) -> Measured:
        with cut(models, _chosen(kinds, numbers)):
            return measure()

    base = total = traced(fewest)
    for kind, count in counts.items():
        if count > FEW:
            more = min(2 * FEW, count)
            total = total + (count - FEW) / (more - FEW) * (traced({**fewest, kind: more}) - base)
    # What a model computes once, such as the test of how it transforms its logits, only the first trace has.
    return replace(total, work=total.work.without_negative(), forward=total.forward.without_negative())


def _chosen(kinds: Sequence[Hashable], numbers: dict[Hashable, int]) -> list[int]:
    """Indices of the first layers of each kind, as many as `numbers` says."""
    left = dict(numbers)
    chosen = []
    for index, kind in enumerate(kinds):
        if left[kind]:
            left[kind] -= 1
            chosen.append(index)
    return chosen


@contextmanager
def cut(models: Sequence[nn.Module], numbers: Sequence[int]) -> Iterator[None]:
    """Leave the models only the decoder layers with these indices inside this context."""
    undo: list[Callable[[], None]] = []
    try:
        for model in models:
            undo.append(_cut(model, numbers))
        yield
    finally:
        for each in reversed(undo):
            each()


def _cut(model: nn.Module, numbers: Sequence[int]) -> Callable[[], None]:
    layers, inner = decoder_layers(model), unwrapped(model)
    parent, name = next(
        (module, name) for module in inner.modules() for name, child in module.named_children() if child is layers
    )
    config: Any = inner.config.get_text_config()
    count, types = config.num_hidden_layers, vars(config).get("layer_types")  # of some it is a property
    # A layer's number says where a cache and the types of layers have it; those left may have had gaps between them.
    numbered: list[tuple[Any, int]] = [
        (module, place)
        for place, index in enumerate(numbers)
        for module in layers[index].modules()
        if "layer_idx" in vars(module)
    ]
    before = [module.layer_idx for module, _ in numbered]
    for module, place in numbered:
        module.layer_idx = place
    parent._modules[name] = nn.ModuleList(layers[index] for index in numbers)
    config.num_hidden_layers = len(numbers)
    if types is not None:
        config.layer_types = [types[index] for index in numbers]

    def undo() -> None:
        parent._modules[name] = layers
        for (module, _), number in zip(numbered, before, strict=True):
            module.layer_idx = number
        config.num_hidden_layers = count
        if types is not None:
            config.layer_types = types

    return undo
