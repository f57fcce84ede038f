"""Gated MLPs, `down(act(gate(x)) * up(x))`, that keep only two of their four wide intermediate results.

Autograd would keep `gate(x)`, `act(gate(x))`, `up(x)` and the product, which is the down projection's input; together
they are about 60% of a decoder layer's saved tensors. The second and the last are elementwise functions of the others,
so the backward pass recomputes them with the same kernels on the same numbers: gradients are bitwise equal.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_align.acceleration.layers import in_decoder_layers, replace_forward
from hf_align.acceleration.shared import Shared, Undo

_GATED = Shared()
_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def keep_less_of_mlps(model: nn.Module) -> Undo:
    """Let gated MLPs in decoder layers of `model` save less for the backward pass.

    In a layer whose activations are recomputed anyway the original forward runs, decided at each call.

    Args:
        model: A transformers or PEFT model, or a wrapper of one. MLPs that compute something else are left alone.

    Returns:
        The undo.
    """
    layer_of = _gated_mlps(model)
    return _GATED.join(layer_of, lambda module: replace_forward(module, _forward_in(layer_of[module])))


def gated_mlps(model: nn.Module) -> list[nn.Module]:
    """The gated MLPs in decoder layers, except those whose forward others replaced."""
    return list(_gated_mlps(model))


def _gated_mlps(model: nn.Module) -> dict[nn.Module, GradientCheckpointingLayer]:
    return in_decoder_layers(model, _GATED, _has_parts, _is_gated, _PROJECTIONS)


def _has_parts(module: nn.Module) -> bool:
    act = getattr(module, "act_fn", None)
    trained = isinstance(act, nn.Module) and any(True for _ in act.parameters())  # would get no gradients
    return callable(act) and not trained and {*_PROJECTIONS} <= {name for name, _ in module.named_children()}


def _is_gated(module: Any) -> bool:
    """Whether a module computes exactly down(act(gate(x)) * up(x)).

    Probed, not looked up by name or source: the module's own forward runs with small random projections in place of its
    three, and must give bitwise that result and its gradients. Its weights aren't read.
    """
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), torch.enable_grad():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed the GPU's, which isn't restored
        gate, up, down = nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(10, 6)
        x = torch.randn(2, 3, 6).requires_grad_()
        inputs = [x, *(weight for part in (gate, up, down) for weight in part.parameters())]
        twin = copy.copy(module)
        projections = dict(zip(_PROJECTIONS, (gate, up, down), strict=True))
        vars(twin)["_modules"] = {**dict(module.named_children()), **projections}
        try:
            computed, expected = type(module).forward(twin, x), down(module.act_fn(gate(x)) * up(x))
            gradients = [torch.autograd.grad(out.square().sum(), inputs) for out in (computed, expected)]
        except Exception:  # other inputs or sizes expected
            return False
    pairs = zip((computed, *gradients[0]), (expected, *gradients[1]), strict=True)
    return all(torch.equal(actual, ours) for actual, ours in pairs)


def _forward_in(layer: GradientCheckpointingLayer) -> Callable[..., Tensor]:
    """The forward of a gated MLP in a decoder layer."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        unpatched = layer.gradient_checkpointing or not torch.is_grad_enabled() or torch.compiler.is_compiling()
        if unpatched or len(args) != 1 or kwargs:
            return type(self).forward(self, *args, **kwargs)
        (x,) = args
        gate, up = self.gate_proj(x), self.up_proj(x)
        active = _Active(self.act_fn)
        product = _GatedProduct.apply(gate, up, active)
        keeper = _Keeper(product, gate, up, active)
        with saved_tensors_hooks(keeper.pack, keeper.unpack):
            return self.down_proj(product)

    return forward


class _Active:
    """act(gate) with its graph, computed once per backward pass for both the down projection and the product."""

    def __init__(self, act: Callable[[Tensor], Tensor]):
        self.act = act
        self.cached: tuple[Tensor, Tensor] | None = None

    def of(self, gate: Tensor) -> tuple[Tensor, Tensor]:
        """The gate as a leaf, and act(gate)."""
        if self.cached is None:
            with torch.enable_grad():
                leaf = gate.detach().requires_grad_()
                self.cached = leaf, self.act(leaf)
        return self.cached


class _Keeper:
    """Saved-tensor hooks for the down projection's input: autograd keeps how to compute it instead of the tensor."""

    def __init__(self, product: Tensor, gate: Tensor, up: Tensor, active: _Active):
        self.storage, self.size = product.untyped_storage()._cdata, product.numel()
        self.gate, self.up, self.active = gate.detach(), up.detach(), active

    def pack(self, tensor: Tensor) -> Tensor | torch.Size:
        """The product's shape in place of the product, whose storage lives until this layer has computed."""
        whole = tensor.numel() == self.size and tensor.is_contiguous()
        return tensor.shape if whole and tensor.untyped_storage()._cdata == self.storage else tensor

    def unpack(self, packed: Tensor | torch.Size) -> Tensor:
        """Restore the tensor that was packed."""
        if isinstance(packed, Tensor):
            return packed
        with torch.autocast(self.gate.device.type, enabled=False):
            return (self.active.of(self.gate)[1].detach() * self.up).view(packed)


class _GatedProduct(torch.autograd.Function):
    """act(gate) * up, elementwise; the backward pass recomputes act(gate)."""

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
            ctx.active.cached = None
            (grad_gate,) = torch.autograd.grad(active, leaf, grad * up)
            return grad_gate, grad * active.detach(), None
