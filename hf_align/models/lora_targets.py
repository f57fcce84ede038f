"""Linear layers on which an adapter would do nothing or fail, and those into which none can be merged."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel
from peft.tuners import tuners_utils
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_align.errors import UserError

MERGED = 2e-3
"""Maximum change of logits or scores by rounding in a merge, as a share of the largest."""


def without_unfit(config: PeftConfig, model: nn.Module) -> PeftConfig:
    """An adapter's config for a model, without unfit layers if it is for all linear layers.

    Args:
        config: The config, not changed.
        model: A model without an adapter.
    """
    config = copy.deepcopy(config)
    settings: Any = config
    targets, excluded = getattr(config, "target_modules", None), getattr(config, "exclude_modules", None)
    if isinstance(targets, str) and targets.lower() == "all-linear" and not isinstance(excluded, str):
        unfit = {*unfit_layers(model), *_refused_by_peft(config, model)}
        if unfit:
            settings.exclude_modules = sorted({*(excluded or ()), *unfit})
    return config


def unfit_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers on which an adapter would fail or do nothing.

    It breaks routers, linear layers by class whose forward returns more than a tensor. It does nothing if the model
    reads a layer's weight without calling the layer, as state-space mixers do; merged, it would take effect.
    """
    return [*_routers(model), *_uncalled(model)]


def check_targets(model: PeftModel) -> None:
    """Refuse an adapter on unfit layers.

    Raises:
        UserError: There are such layers; the message names them and how to leave them out.
    """
    if names := _unfit_with_adapter(model):
        endings = sorted({name.rpartition(".")[2] for name in names})
        raise UserError(
            f"peft_config, or lora: an adapter on {names[0]} would do nothing or fail, since the model reads "
            f"its weights without calling it, or more than a tensor from it; set exclude_modules={endings}."
        )


@torch.no_grad()
def merged_into_base(model: PeftModel) -> PreTrainedModel:
    """Add an adapter to its base's weights, and check that the model's output is unchanged.

    Layers that share a weight and its adapter, as tied embeddings do, get the change once; peft would add it twice.

    Raises:
        UserError: Layers share a weight that the adapter changes differently in each, or a weight is read without its
            layer, so that the adapter had no effect there before.
    """
    advice = "so it can't be merged; use it on its base, or train one with exclude_modules that leave such layers out."
    sharing: defaultdict[int, list[tuple[str, Any]]] = defaultdict(list)
    for name, module in cast(Any, model).get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer) and isinstance(base := module.get_base_layer(), nn.Linear | nn.Embedding):
            sharing[base.weight.data_ptr()].append((name, module))
    if unfit := _unfit_with_adapter(model):
        raise UserError(f"The adapter is on {unfit[0]}, whose weights the model reads without calling it, {advice}")
    ids = torch.tensor([[1, 2, 1, 2, 2, 1, 1, 2]], device=cast(torch.device, model.device))
    before = cast(Any, model.eval())(input_ids=ids, use_cache=False).logits
    for (first, layer), *others in sharing.values():
        for name, other in others:
            if _adapter_storage(other) != _adapter_storage(layer):
                raise UserError(f"The adapter changes {first} and {name}, which share one weight, {advice}")
            other.scaling = dict.fromkeys(other.scaling, 0.0)
    merged: Any = cast(Any, model).merge_and_unload()
    after = merged(input_ids=ids, use_cache=False).logits
    if (after - before).abs().max() > MERGED * before.abs().max():  # the check of saved weights reports NaN
        raise UserError(f"Merging the adapter changes the model's output, {advice}")
    return merged


def _unfit_with_adapter(model: PeftModel) -> list[str]:
    """Names of the unfit layers on which there is an adapter."""
    base = cast(Any, model).get_base_model()
    layers = dict(base.named_modules())
    names = [name.removesuffix(".base_layer") for name in unfit_layers(base)]
    return [name for name in names if isinstance(layers.get(name), BaseTunerLayer)]


def _adapter_storage(layer: Any) -> set[int]:
    """Addresses of the weights of a layer's adapters."""
    parts = (getattr(layer, name, None) for name in layer.adapter_layer_names)
    return {weight.data_ptr() for part in parts if isinstance(part, nn.Module) for weight in part.parameters()}


def _routers(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and type(module).__module__.startswith("transformers.") and not _maps(module)
    ]


@torch.no_grad()
def _maps(layer: nn.Linear) -> bool:
    """Whether a layer's forward returns one tensor, as an adapter on it expects."""
    try:
        return isinstance(layer(layer.weight.new_zeros(1, layer.in_features)), Tensor)
    except Exception:  # it expects something other than a row
        return False


def _uncalled(model: nn.Module) -> list[str]:
    """Linear layers next to a convolution, as in state-space mixers, that a training pass doesn't call."""
    names: dict[nn.Module, str] = {}
    for prefix, module in model.named_modules():
        if any(isinstance(child, nn.Conv1d) for child in module.children()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear | BaseTunerLayer):
                    names[cast(nn.Module, child)] = f"{prefix}.{name}"
    if not names:
        return []
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_pre_hook(lambda layer, args: called.add(layer)) for layer in names]
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        # Kernels that read weights only run in training.
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
            cast(Any, model.train())(input_ids=torch.ones(1, 4, dtype=torch.long, device=device), use_cache=False)
    except (RuntimeError, ValueError, TypeError, IndexError):  # on the meta device, which has no values for routing
        return []
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return [name for layer, name in names.items() if layer not in called]


def _refused_by_peft(config: PeftConfig, model: nn.Module) -> list[str]:
    """Names of linear layers on which peft itself refuses adapters, in some families of state-space models."""
    check = getattr(tuners_utils, "_check_lora_target_modules_mamba", None)
    if check is None:
        return []
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    refused = []
    for name in names:
        try:
            check(config, model, name)
        except ValueError:
            refused.append(name)
    return refused
