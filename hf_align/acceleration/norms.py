"""RMS norms whose weights are trained, keeping their input only.

In full fine-tuning autograd keeps of `weight * (x * rsqrt(mean(x^2)))` both x, in float32, and the product in brackets:
about a seventh of all that a decoder layer keeps. The norm is a few elementwise operations, so the backward pass runs
it again, with the same kernels on the same numbers: gradients are the same to the bit. Under LoRA weights are frozen,
and autograd needs no product.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def keep_less_of_norms(model: nn.Module) -> None:
    """Let trained RMS norms in decoder layers of `model` keep less for the backward pass.

    A layer whose activations are recomputed anyway keeps to its own forward, decided at each call.

    Args:
        model: A transformers or PEFT model, or a wrapper of one.
    """
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for module in layer.modules():
                # An RMS norm, as transformers names them, with a weight and nothing else inside.
                alone = not list(module.children()) and isinstance(getattr(module, "weight", None), nn.Parameter)
                if alone and type(module).__name__.endswith("RMSNorm") and "forward" not in vars(module):
                    module.forward = types.MethodType(_forward_in(layer), module)


def _forward_in(layer: GradientCheckpointingLayer) -> Callable[..., Tensor]:
    """The forward of a norm in a decoder layer."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        own = type(self).forward
        plain = layer.gradient_checkpointing or not self.weight.requires_grad
        if plain or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return own(self, *args, **kwargs)
        return checkpoint(own, self, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return forward
