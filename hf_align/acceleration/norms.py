"""RMS norms with trained weights that save only their input.

In full fine-tuning autograd saves both x, in float32, and the product in brackets of `weight * (x * rsqrt(mean(x^2)))`:
about a seventh of a decoder layer's saved tensors. The norm is a few elementwise operations, so the backward pass runs
it again with the same kernels on the same numbers: gradients are bitwise equal. Under LoRA the weights are frozen, and
autograd doesn't need the product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_align.acceleration.layers import in_decoder_layers, replace_forward
from hf_align.acceleration.shared import Shared, Undo

_LEAN = Shared()


def keep_less_of_norms(model: nn.Module) -> Undo:
    """Let RMS norms with trained weights in decoder layers of `model` save less for the backward pass.

    In a layer whose activations are recomputed anyway the original forward runs, decided at each call.

    Args:
        model: A transformers or PEFT model, or a wrapper of one.

    Returns:
        The undo.
    """
    layer_of = _rms_norms(model)
    return _LEAN.join(layer_of, lambda module: replace_forward(module, _forward_in(layer_of[module])))


def rms_norms(model: nn.Module) -> list[nn.Module]:
    """The RMS norms in decoder layers, except those whose forward others replaced."""
    return list(_rms_norms(model))


def _rms_norms(model: nn.Module) -> dict[nn.Module, GradientCheckpointingLayer]:
    return in_decoder_layers(model, _LEAN, _has_one_weight, _is_rms_norm)


def _has_one_weight(module: nn.Module) -> bool:
    names = [name for name, _ in module.named_parameters()]
    return names == ["weight"] and module.weight.ndim == 1 and not list(module.children())  # type: ignore[operator]


def _is_rms_norm(module: nn.Module) -> bool:
    """Whether a module computes g(weight) * x / rms(x) for some g, such as the weight itself or 1 + weight.

    Probed: its own forward runs with a random weight. A row of ones gives g(weight), up to the norm's epsilon, and two
    other rows must be multiplied by it.
    """
    draw, size = torch.Generator().manual_seed(0), len(cast(Tensor, module.weight))
    twin = copy.copy(module)
    vars(twin)["_parameters"] = {"weight": nn.Parameter(torch.randn(size, generator=draw))}
    x = torch.cat([torch.ones(1, size), 3 * torch.randn(2, size, generator=draw)])
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        try:
            factors, *rows = type(module).forward(twin, x)
        except Exception:  # other inputs expected
            return False
        expected = factors * x[1:] * x[1:].square().mean(-1, keepdim=True).rsqrt()
    return torch.allclose(torch.stack(rows), expected, rtol=1e-3, atol=1e-3)


def _forward_in(layer: GradientCheckpointingLayer) -> Callable[..., Tensor]:
    """The forward of a norm in a decoder layer."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        original = type(self).forward
        plain = layer.gradient_checkpointing or not self.weight.requires_grad
        if plain or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return original(self, *args, **kwargs)
        return checkpoint(original, self, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return forward
