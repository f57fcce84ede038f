"""Switching of a PEFT model's adapters without the side effects of peft's own functions.

`PeftModel.set_adapter` and the exit of `disable_adapter` also change `requires_grad`, which silently freezes adapters.
`active_adapter` only changes the forward's computation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn
from transformers import PreTrainedModel

from hf_align.errors import UserError, reason_of
from hf_align.files import VALUE_ADAPTER_FOLDER
from hf_align.models.fingerprint import rewrites_base
from hf_align.models.lora_targets import check_targets, without_unfit

Lora = LoraConfig | bool | None

REFERENCE_ADAPTER, START_ADAPTER = "reference", "reference_start"
VALUE_ADAPTER, REWARD_ADAPTER = VALUE_ADAPTER_FOLDER, "reward"
"""Names of further adapters besides the policy's own; peft saves each in a folder of its name."""


@contextmanager
def active_adapter(model: nn.Module, name: str | None) -> Iterator[None]:
    """Run `model` with the adapter `name`, or with none (`None`: the base model), inside this context.

    Gradient checkpointing recomputes layers in the backward pass, when another adapter is active: layers computed in
    here are recomputed with `name`.

    Args:
        model: A model that contains peft layers; `requires_grad` of its parameters is never touched.
        name: The adapter to use.
    """
    saved: list[tuple[nn.Module, object, bool]] = []
    checkpoints: list[tuple[nn.Module, Callable[..., Any]]] = []
    for module in model.modules():
        if "_gradient_checkpointing_func" in vars(module):
            original = cast(Callable[..., Any], module._gradient_checkpointing_func)
            checkpoints.append((module, original))
            vars(module)["_gradient_checkpointing_func"] = partial(_checkpoint_under, module, name, original)
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            saved.append((module, module._active_adapter, module._disable_adapters))
            # A layer without this adapter computes as the base; peft's token layers would fail to look it up.
            module._disable_adapters = name is None or not _has_adapter(module, name)
            if name is not None:
                module._active_adapter = [name]
    try:
        yield
    finally:
        for module, adapters, disabled in saved:
            module._active_adapter, module._disable_adapters = adapters, disabled  # type: ignore[assignment]
        for module, original in checkpoints:
            vars(module)["_gradient_checkpointing_func"] = original


def _has_adapter(module: BaseTunerLayer | AuxiliaryTrainingWrapper, name: str) -> bool:
    if isinstance(module, AuxiliaryTrainingWrapper):
        return name in module._adapters
    return any(name in getattr(module, parts, ()) for parts in module.adapter_layer_names)


def _checkpoint_under(
    layer: nn.Module, name: str | None, checkpoint: Any, function: Any, *args: Any, **kwargs: Any
) -> Any:
    """Checkpoint `function`, a part of `layer`, so that it always runs with the adapter `name`."""

    def run(*inputs: Any, **options: Any) -> Any:
        with active_adapter(layer, name):
            return function(*inputs, **options)

    return checkpoint(run, *args, **kwargs)


def adapter_name(model: PeftModel) -> str:
    """The one active adapter of a PEFT model."""
    return cast(str, model.active_adapters[0])


def add_adapter(model: PeftModel, name: str, config: PeftConfig, *, trainable: bool) -> list[str]:
    """Add a new adapter without changing which one is active or which other parameters are trained.

    Args:
        model: Model that gets the adapter, in float32.
        name: Its name.
        config: Its config, which is copied.
        trainable: Whether its parameters require gradients.

    Returns:
        The names of its parameters.
    """
    # By identity: a layer that gets its first adapter changes its weights' names.
    before = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    active = list(model.active_adapters)
    config = copy.deepcopy(config)
    if rewrites_base(config):
        cast(Any, config).init_lora_weights = True  # what it starts with would be taken from under the other adapters
    if hasattr(config, "bias"):
        config.bias = "none"  # type: ignore[attr-defined]  # the base's biases can belong to one adapter only
    PeftModel.add_adapter(model, name, config)  # a classifier's own would also give it a head
    assert list(model.active_adapters) == active
    new = {key: p for key, p in model.named_parameters() if name in key.split(".") and id(p) not in before}
    for parameter in model.parameters():
        parameter.requires_grad_(before.get(id(parameter), trainable))
    return list(new)


def adapter_parameters(model: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters of the adapter `name`, excluding others that happen to have this name."""
    parameters: list[nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            for parts in (getattr(module, kind, None) for kind in module.adapter_layer_names):
                if isinstance(parts, (nn.ModuleDict, nn.ParameterDict)) and name in parts:
                    part = cast(Any, parts[name])
                    parameters.extend([part] if isinstance(part, nn.Parameter) else part.parameters())
    return parameters


def without_dropout(config: PeftConfig) -> PeftConfig:
    """A copy of an adapter's config without dropout, for a frozen one: a reference is never noisy."""
    config = copy.deepcopy(config)
    for option in [name for name in vars(config) if name.endswith("dropout")]:
        setattr(config, option, 0.0)
    return config


def add_frozen_copy(model: PeftModel, source: str, target: str = REFERENCE_ADAPTER) -> dict[str, str]:
    """Add `target`, a frozen copy of the adapter `source` without dropout: the reference of a policy with an adapter.

    It replaces one that an earlier trainer of the same model object left there.

    Returns:
        The names of the copy's parameters, with those that they were copied from.
    """
    if target in model.peft_config:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        model.delete_adapter(target)
        for parameter in trained:
            parameter.requires_grad_(True)
    names = add_adapter(model, target, without_dropout(model.peft_config[source]), trainable=False)
    twins = {name: ".".join(source if part == target else part for part in name.split(".")) for name in names}
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, twin in twins.items():
            parameters[name].copy_(parameters[twin])
    return twins


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Run `model` without dropout and gradient checkpointing, then restore every module's mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def float32_trainable(model: nn.Module) -> None:
    """Keep trained weights in float32: bfloat16 weights silently stop moving at a preference learning rate."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()


def add_lora(model: PreTrainedModel, lora: PeftConfig | bool, task_type: TaskType) -> PeftModel:
    """Add an adapter named `default` to `model`: float32, with the right task type, tied embeddings kept tied."""
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if lora is True else copy.deepcopy(lora)
    assert isinstance(config, PeftConfig)  # a copy: values filled in below must not reach the user's next trainer
    config.task_type = config.task_type or task_type  # without it peft neither trains nor saves a reward model's head
    if config.task_type != task_type:
        raise UserError(f"peft_config.task_type is {config.task_type}; this model needs {task_type.value} (or None).")
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    targets = getattr(config, "target_modules", None) or []
    names = [*(getattr(config, "modules_to_save", None) or []), *([targets] if isinstance(targets, str) else targets)]
    touched = any(name.endswith(("lm_head", "embed_tokens", "wte")) for name in names)
    if tied and touched and getattr(config, "ensure_weight_tying", None) is False:
        config.ensure_weight_tying = True  # type: ignore[attr-defined]
    try:
        adapted: Any = get_peft_model(model, without_unfit(config, model), autocast_adapter_dtype=True)
    except ValueError as error:  # no matching modules, or a rank of 0
        reason = reason_of(error)
        raise UserError(f"peft_config, or lora: {reason}") from error
    check_targets(adapted)
    return adapted
