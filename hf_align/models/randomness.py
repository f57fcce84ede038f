"""Switching off the randomness of models in training: dropout of every kind, and routers that sample or jitter.

Detection is by structure, not by a list of names. In transformers' decoders a dropout probability is an attribute with
"drop" in its name (`attn_dropout`, `resid_pdrop`, `layerdrop`, `drop_path_rate`, peft's `rank_dropout`), of a module or
of the config that modules read when they run, or in a module whose class has such a name (`nn.Dropout`, `DropPath`).
Routers with noise have an attribute with "jitter". The comparison of two passes at the start of training detects other
randomness (`hf_align.trainers.start_checks`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability in `model`, LoRA's included, to zero, and keep noisy routers in evaluation mode.

    Configs are changed in memory only: `dropout_as_loaded` restores their values.
    """
    for module in model.modules():
        is_leaf = not (module._modules or module._parameters)
        is_dropout = is_leaf and any("drop" in each.__name__.lower() for each in type(module).__mro__)
        for name, value in list(vars(module).items()):
            if "drop" in name.lower() or (is_dropout and isinstance(value, float)):
                vars(module)[name] = _without_probabilities(value)
            elif "jitter" in name.lower():
                _keep_in_evaluation(module)
    changed: list[tuple[PreTrainedConfig, str, Any]] = vars(model).setdefault("_dropout_of_configs", [])
    for config in _configs(model):
        for name, value in list(vars(config).items()):
            if "drop" in name.lower() and (zeroed := _without_probabilities(value)) != value:
                changed.append((config, name, value))
                vars(config)[name] = zeroed


@contextmanager
def dropout_as_loaded(model: nn.Module) -> Iterator[None]:
    """Restore the configs of a model whose dropout was disabled inside this context, to save them."""
    changed: list[tuple[PreTrainedConfig, str, Any]] = vars(model).get("_dropout_of_configs", [])
    now = [(config, name, vars(config)[name]) for config, name, _ in changed]
    for config, name, value in changed:
        vars(config)[name] = value
    try:
        yield
    finally:
        for config, name, value in now:
            vars(config)[name] = value


def _without_probabilities(value: Any) -> Any:
    """The value with 0.0 for every float, also in dicts and lists: peft has a probability for each adapter."""
    if isinstance(value, float):
        return 0.0
    if isinstance(value, dict):
        return {key: _without_probabilities(each) for key, each in value.items()}
    return [_without_probabilities(each) for each in value] if isinstance(value, list) else value


def _configs(model: nn.Module) -> list[PreTrainedConfig]:
    """The modules' configs and those nested in them, each once."""
    configs: dict[int, PreTrainedConfig] = {}
    queue: list[object] = list(model.modules())
    while queue:
        for value in vars(queue.pop()).values():
            if isinstance(value, PreTrainedConfig) and id(value) not in configs:
                configs[id(value)] = value
                queue.append(value)
    return list(configs.values())


def _keep_in_evaluation(module: nn.Module) -> None:
    """Make `train()` leave a module in evaluation mode; its children change as usual."""
    module.training = False
    vars(module)["train"] = MethodType(_train_children, module)


def _train_children(module: nn.Module, mode: bool = True) -> nn.Module:
    nn.Module.train(module, mode)
    module.training = False
    return module


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Restore the generators (torch's of CPU and `device`, numpy's, Python's) after this context."""
    python, of_numpy = random.getstate(), np.random.get_state()
    forks = device.type in ("cuda", "xpu")
    try:
        with torch.random.fork_rng([device] if forks else [], device_type=device.type if forks else "cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)


@contextmanager
def without_noise(model: nn.Module) -> Iterator[None]:
    """Run `model` without the noise that NEFTune adds to its embeddings in train mode."""
    noisy = [module for module in model.modules() if "neftune_noise_alpha" in vars(module)]
    alphas = [vars(module)["neftune_noise_alpha"] for module in noisy]
    for module in noisy:
        vars(module)["neftune_noise_alpha"] = 0.0
    try:
        yield
    finally:
        for module, alpha in zip(noisy, alphas, strict=True):
            vars(module)["neftune_noise_alpha"] = alpha
