"""Freezing a decoder's first layers, with and without an adapter.

What feeds the layers is frozen along (embeddings, and in some families positions, norms and projections behind them),
so that gradients end at the first trained layer.
"""

from __future__ import annotations

import copy
import re
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.models.wrapper import unwrapped

logger = logging.get_logger(__name__)


class _Reached(Exception):
    """Ends a pass at the first layer."""


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """A decoder's layers in order, found by their number in the config.

    Raises:
        UserError: There is no such list of modules.
    """
    inner = unwrapped(model)
    count = getattr(inner.config.get_text_config(), "num_hidden_layers", None)
    for module in inner.modules():  # from the outside in, so before lists within layers
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UserError(
        f"A {type(inner).__name__} has no list of layers to be found; leave out freeze_layers, or features of a choice."
    )


def freeze_layers(model: nn.Module, count: int) -> None:
    """Train neither the first `count` layers of a decoder nor what comes before them.

    An adapter that these layers already have stays in use as it is. Weights keep their dtype under an adapter; without
    one they become float32 like those that are trained.

    Args:
        model: A transformers or PEFT model.
        count: At least 1 and at most the number of layers.

    Raises:
        UserError: The model has fewer layers.
    """
    adapted = isinstance(unwrapped(model, keep_peft=True), PeftModel)
    modules = frozen_modules(model, count)
    if any(isinstance(part, BaseTunerLayer) for module in modules.values() for part in module.modules()):
        logger.warning(
            f"freeze_layers={count}: the adapter also changes layers among these, or the embeddings; there it stays in "
            "use as it is and isn't trained."
        )
    for module in modules.values():
        module.requires_grad_(False)
        if not adapted:
            module.float()


def adapter_above(config: PeftConfig | bool | None, model: nn.Module, count: int) -> Any:
    """An adapter's config that leaves out the first `count` layers of `model`, and what comes before them.

    Args:
        config: A config, which isn't changed, True for the default, or None (for none).
        model: A model without an adapter.
        count: Number of layers; 0 changes nothing.

    Raises:
        UserError: The model has fewer layers, or no layer would be left.
    """
    if not config or not count or not isinstance(config, PeftConfig | bool):  # others are refused by `add_lora`
        return config
    names = [
        ".".join(filter(None, (prefix, name)))
        for prefix, module in frozen_modules(model, count).items()
        for name, part in module.named_modules()
        if getattr(getattr(part, "weight", None), "ndim", 0) > 1
    ]
    if count == len(decoder_layers(model)):
        raise UserError(
            f"freeze_layers is {count}, all of the model's layers, so there is none for an adapter; leave out "
            "peft_config (lora) to train the head, or freeze fewer."
        )
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if config is True else copy.deepcopy(config)
    settings, excluded = cast(Any, config), getattr(config, "exclude_modules", None)
    if isinstance(excluded, str):
        settings.exclude_modules = "|".join([f"(?:{excluded})", *map(re.escape, names)])
    else:
        settings.exclude_modules = sorted({*(excluded or ()), *names})
    return config


def frozen_modules(model: nn.Module, count: int) -> dict[str, nn.Module]:
    """The first `count` layers and the modules with weights that run before them, by name.

    Raises:
        UserError: The model has fewer layers.
    """
    inner, layers = unwrapped(model), decoder_layers(model)
    if not 1 <= count <= len(layers):
        raise UserError(f"freeze_layers is {count}, and the model has {len(layers)} layers; freeze at most as many.")
    first = layers[0]
    named: dict[nn.Module, str] = {module: name for name, module in inner.named_modules()}
    around = {module for module in named if any(part is first for part in module.modules())}
    before: list[nn.Module] = []

    def note(module: nn.Module, args: Any) -> None:
        if module is first:
            raise _Reached
        if next(module.parameters(), None) is not None:
            before.append(module)

    hooks = [module.register_forward_pre_hook(note) for module in named if module is first or module not in around]
    ids = torch.ones(1, 2, dtype=torch.long, device=inner.get_input_embeddings().weight.device)
    # On the meta device a mask that isn't final would be inspected.
    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool, device=ids.device) if ids.is_meta else torch.ones_like(ids)
    try:
        with torch.no_grad():
            inner(input_ids=ids, attention_mask=mask, use_cache=False)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return {named[module]: module for module in [*before, *layers[:count]]}
