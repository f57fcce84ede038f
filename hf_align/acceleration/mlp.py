"""Gated MLPs, `down(act(gate(x)) * up(x))`, that keep two of their four wide intermediate results.

Autograd would keep `gate(x)`, `act(gate(x))`, `up(x)` and the product, which the down projection reads; together they
are about 60% of what a decoder layer keeps. The second and the last are elementwise functions of the others, so the
backward pass computes them again, with the same kernels on the same numbers: gradients are the same to the bit.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from transformers.modeling_layers import GradientCheckpointingLayer

GATED = "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))"
"""How transformers writes such a layer, whatever the model."""


def keep_less_of_mlps(model: nn.Module) -> None:
    """Let the gated MLPs in decoder layers of `model` keep less for the backward pass.

    A layer whose activations are recomputed anyway keeps to its own forward, decided at each call.

    Args:
        model: A transformers or PEFT model, or a wrapper of one. MLPs that are written otherwise stay as they are.
    """
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for module in layer.modules():
                if _is_gated(type(module)) and "forward" not in vars(module):
                    module.forward = types.MethodType(_forward_in(layer), module)


@cache
def _is_gated(kind: type[nn.Module]) -> bool:
    try:
        return GATED in inspect.getsource(kind.forward)
    except (OSError, TypeError):  # no source, as in a frozen program
        return False


def _forward_in(layer: GradientCheckpointingLayer) -> Callable[[Any, Tensor], Tensor]:
    """The forward of a gated MLP in a decoder layer."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if layer.gradient_checkpointing or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return type(self).forward(self, x)
        gate, up = self.gate_proj(x), self.up_proj(x)
        active = _Active(self.act_fn)
        product = _GatedProduct.apply(gate, up, active)
        keeper = _Keeper(product, gate, up, active)
        with saved_tensors_hooks(keeper.pack, keeper.unpack):
            return self.down_proj(product)

    return forward


class _Active:
    """act(gate) with its graph, computed once in the backward pass: for the down projection, then for the product."""

    def __init__(self, act: Callable[[Tensor], Tensor]):
        self.act = act
        self.known: tuple[Tensor, Tensor] | None = None

    def of(self, gate: Tensor) -> tuple[Tensor, Tensor]:
        """The gate as a leaf, and act of it."""
        if self.known is None:
            with torch.enable_grad():
                leaf = gate.detach().requires_grad_()
                self.known = leaf, self.act(leaf)
        return self.known


class _Keeper:
    """Answers autograd's question what to keep of the down projection's input: how to compute it."""

    def __init__(self, product: Tensor, gate: Tensor, up: Tensor, active: _Active):
        self.storage, self.size = product.untyped_storage()._cdata, product.numel()
        self.gate, self.up, self.active = gate.detach(), up.detach(), active

    def pack(self, tensor: Tensor) -> Tensor | torch.Size:
        """The product's shape in place of the product, whose storage lives as long as this layer computes."""
        whole = tensor.numel() == self.size and tensor.is_contiguous()
        return tensor.shape if whole and tensor.untyped_storage()._cdata == self.storage else tensor

    def unpack(self, packed: Tensor | torch.Size) -> Tensor:
        """Give back the tensor that was packed."""
        if isinstance(packed, Tensor):
            return packed
        with torch.autocast(self.gate.device.type, enabled=False):
            return (self.active.of(self.gate)[1].detach() * self.up).view(packed)


class _GatedProduct(torch.autograd.Function):
    """act(gate) * up, elementwise; the backward pass computes act(gate) again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, active: _Active) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.active = active
        return active.act(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        (grad,) = grad_outputs
        with torch.autocast(grad.device.type, enabled=False):
            leaf, active = ctx.active.of(gate)
            ctx.active.known = None
            (of_gate,) = torch.autograd.grad(active, leaf, grad * up)
            return of_gate, grad * active.detach(), None
