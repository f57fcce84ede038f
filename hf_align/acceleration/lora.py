"""LoRA layers on plain frozen weights in one operation, with fewer casts, copies and saved tensors than in peft.

peft computes `base(x) + lora_B(lora_A(x)) * scaling` as five operations. Under autocast each casts its own inputs, so
that query, key and value projections hold three casts of the same hidden states until the backward pass, as well as the
cast weights and the scaled second product. Here the adapter's product is added to the base layer's output in place,
layers that share an input share its cast, and only that cast and `lora_A(x)` (`[T, r]`) are kept for the backward pass.

The results are peft's, with two roundings fewer in 16 bits. An adapter whose B matrix is zero changes nothing, to the
bit, so a new policy equals its reference.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable

from hf_align.acceleration.layers import replace_forward
from hf_align.acceleration.shared import Shared, Undo

PLAIN = (nn.Parameter, FakeTensor)
"""Classes of weights without behaviour of their own; those of a trace have no data."""
_FUSED = Shared()


def fuse_lora(model: nn.Module) -> Undo:
    """Let LoRA layers on plain linear layers in `model` compute in one operation wherever the result is the same.

    Merged or several active adapters, dropout, hooks on the adapter's input, DoRA and other variants, and trained base
    weights use peft's forward, decided at each call.

    Args:
        model: A PEFT model, or a wrapper of one; others stay as they are.

    Returns:
        The undo.
    """
    return _FUSED.join(fusible_layers(model), lambda layer: replace_forward(layer, _forward))


def fusible_layers(model: nn.Module) -> list[nn.Module]:
    """The LoRA layers on plain linear layers, except those whose forward others replaced."""
    return [
        module
        for module in model.modules()
        if type(module) is LoraLinear
        and type(module.base_layer) is nn.Linear
        and ("forward" not in vars(module) or module in _FUSED)
    ]


@cache
def computes_as_peft() -> bool:
    """Whether the installed peft computes a layer as this file does, tried on a small layer once per process."""
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), torch.enable_grad():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed the GPU's, which isn't restored
        config = LoraConfig(r=2, lora_alpha=6, target_modules=["0"], init_lora_weights=False)
        model: Any = get_peft_model(cast(Any, nn.Sequential(nn.Linear(5, 3))), config).double()
        layer, x = model.get_base_model()[0], torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
        trained = [x, *(weight for weight in layer.parameters() if weight.requires_grad)]
        ours, expected = (
            [out.detach(), *torch.autograd.grad(out.square().sum(), trained)]
            for out in (_forward(layer, x), LoraLinear.forward(layer, x))
        )
    return all(torch.allclose(ours, theirs, rtol=1e-9) for ours, theirs in zip(ours, expected, strict=True))


def _forward(module: LoraLinear, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    autocast = torch.is_autocast_enabled(x.device.type)
    adapter = None if args or kwargs or torch.compiler.is_compiling() else _only_adapter(module)
    if adapter is None or not _is_plain(cast(nn.Linear, module.base_layer)):
        return LoraLinear.forward(module, x, *args, **kwargs)
    base = cast(nn.Linear, module.base_layer)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else base.weight.dtype
    lora_a = cast(Tensor, module.lora_A[adapter].weight) if adapter else None
    lora_b = cast(Tensor, module.lora_B[adapter].weight) if adapter else None
    if not autocast and not all(each is None or each.dtype == dtype for each in (x, lora_a)):
        return LoraLinear.forward(module, x)  # peft computes the adapter in its own dtype there
    inputs = _SharedCast.of(x, dtype).flatten(0, -2)
    weights = base.weight, base.bias, lora_a, lora_b, module.scaling[adapter] if adapter else 0.0
    trained = torch.is_grad_enabled()
    out = _LoraLinear.apply(x.flatten(0, -2), inputs, *weights) if trained else _output(inputs, *weights)[0]
    return out.view(*x.shape[:-1], out.shape[-1])


def _is_plain(base: nn.Linear) -> bool:
    """Whether a base layer is frozen and nothing (offloading, a user's hook) depends on its forward being called."""
    hooked = base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or "forward" in vars(base)
    frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
    return frozen and not hooked and type(base.weight) in PLAIN


def _only_adapter(module: LoraLinear) -> str | None:
    """Name of the one adapter that a layer adds, "" for none, or None if it does more than that."""
    if module.merged:
        return None
    if module.disable_adapters:
        return ""
    names = [name for name in module.active_adapters if name in module.lora_A]
    if len(names) != 1:
        return None if names else ""
    name = names[0]
    dropout: Any = module.lora_dropout[name]
    dropped = module.training and getattr(dropout, "p", 0.0) > 0
    first: Any = module.lora_A[name]
    biased = first.bias is not None or module.lora_B[name].bias is not None
    return None if dropped or biased or first._forward_pre_hooks or name in module.lora_variant else name


class _SharedCast:
    """The last tensor cast, with its cast: projections of the same hidden states run one after another."""

    last: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    @classmethod
    def of(cls, x: Tensor, dtype: torch.dtype) -> Tensor:
        """`x` in `dtype`, without gradient."""
        if x.dtype == dtype:
            return x.detach()
        if cls.last is not None:
            source, version, last_cast = cls.last
            if source() is x and version == x._version and last_cast.dtype == dtype:
                return last_cast
        result = x.detach().to(dtype)
        cls.last = (weakref.ref(x), x._version, result)
        return result


def _output(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, lora_a: Tensor | None, lora_b: Tensor | None, scaling: float
) -> tuple[Tensor, Tensor | None]:
    """The layer's output `[T, out]`, and `lora_A(x)` `[T, r]` if there is an adapter, in the inputs' dtype."""
    dtype = inputs.dtype
    with torch.autocast(inputs.device.type, enabled=False):
        out = nn.functional.linear(inputs, weight.to(dtype), None if bias is None else bias.to(dtype))
        inner = None
        if lora_a is not None and lora_b is not None:
            inner = inputs @ lora_a.to(dtype).t()
            out.addmm_(inner, lora_b.to(dtype).t(), alpha=scaling)
    return out, inner


class _LoraLinear(torch.autograd.Function):
    """x W' + b + scaling * (x A') B', `[T, in] -> [T, out]`, with gradients for x, A `[r, in]` and B `[out, r]`.

    `inputs` is x in the compute dtype. Without A and B it is the base layer alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lora_a: Tensor | None,
        lora_b: Tensor | None,
        scaling: float,
    ) -> Tensor:
        out, inner = _output(inputs, weight, bias, lora_a, lora_b, scaling)
        ctx.scaling = scaling
        # The backward pass casts the weight again: kept, the casts would add half of a float32 model's size.
        ctx.save_for_backward(None if lora_a is None else inputs, inner, weight, lora_a, lora_b)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, inner, weight, lora_a, lora_b = ctx.saved_tensors
        (grad,) = grad_outputs
        grad_x = grad_a = grad_b = None
        dtype = grad.dtype
        with torch.autocast(grad.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_x = grad @ weight.to(dtype)
            if inner is not None:
                grad_inner = (grad @ lora_b.to(dtype)).mul_(ctx.scaling)
                if grad_x is not None:
                    grad_x.addmm_(grad_inner, lora_a.to(dtype))
                if ctx.needs_input_grad[4]:
                    grad_a = (grad_inner.t() @ inputs).to(lora_a.dtype)
                if ctx.needs_input_grad[5]:
                    grad_b = (grad.t() @ inner).mul_(ctx.scaling).to(lora_b.dtype)
        return grad_x, None, None, None, grad_a, grad_b, None
