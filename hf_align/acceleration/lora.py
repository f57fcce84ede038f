"""LoRA layers on plain frozen weights in one operation: fewer casts, copies and tensors kept than peft's own forward.

peft computes `base(x) + lora_B(lora_A(x)) * scaling` as five operations. Under autocast each casts its own inputs, so
that query, key and value projections hold three casts of the same hidden states until the backward pass, beside the
cast weights and the scaled second product. Here the adapter's product is added into the base layer's output, layers
that share an input share its cast, and the backward pass keeps that cast and `lora_A(x)` (`[T, r]`) only.

The numbers are those of peft but for two roundings less in 16 bits. An adapter whose second matrix is zero changes
nothing to the bit, so a new policy equals its reference.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hf_align.acceleration.layers import replace_forward
from hf_align.acceleration.shared import Shared, Undo

_FUSED = Shared()


def fuse_lora(model: nn.Module) -> Undo:
    """Let the LoRA layers on plain linear layers in `model` compute in one operation wherever that is the same.

    Merged or several active adapters, dropout, DoRA and other variants, and weights that are trained themselves go
    peft's way, decided at each call.

    Args:
        model: A PEFT model, or a wrapper of one; others stay as they are.

    Returns:
        How to take that back.
    """
    return _FUSED.join(fusible_layers(model), lambda layer: replace_forward(layer, _forward))


def fusible_layers(model: nn.Module) -> list[nn.Module]:
    """The LoRA layers on plain linear layers, but for those whose forward somebody else has replaced."""
    return [
        module
        for module in model.modules()
        if type(module) is LoraLinear
        and type(module.base_layer) is nn.Linear
        and ("forward" not in vars(module) or module in _FUSED)
    ]


@cache
def computes_as_peft() -> bool:
    """Whether the installed peft computes a layer as this file does: a small one is asked, once a process."""
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), torch.enable_grad():
        torch.manual_seed(0)
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
    first = cast(Tensor, module.lora_A[adapter].weight) if adapter else None
    second = cast(Tensor, module.lora_B[adapter].weight) if adapter else None
    if not autocast and not all(each is None or each.dtype == dtype for each in (x, first)):
        return LoraLinear.forward(module, x)  # peft computes the adapter in its own dtype there
    inputs = _SharedCast.of(x, dtype).flatten(0, -2)
    weights = base.weight, base.bias, first, second, module.scaling[adapter] if adapter else 0.0
    trained = torch.is_grad_enabled()
    out = _LoraLinear.apply(x.flatten(0, -2), inputs, *weights) if trained else _output(inputs, *weights)[0]
    return out.view(*x.shape[:-1], out.shape[-1])


def _is_plain(base: nn.Linear) -> bool:
    """Whether a base layer is frozen, and nothing (offloading, a user's hook) wants to see its forward."""
    hooked = base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or "forward" in vars(base)
    frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
    return frozen and not hooked and type(base.weight) is nn.Parameter


def _only_adapter(module: LoraLinear) -> str | None:
    """The one adapter that a layer adds, "" for none, or None where it does more than that."""
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
    biased = module.lora_A[name].bias is not None or module.lora_B[name].bias is not None
    return None if dropped or biased or name in module.lora_variant else name


class _SharedCast:
    """The last tensor that was cast, and its cast: projections that get the same hidden states follow each other."""

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
    inputs: Tensor, weight: Tensor, bias: Tensor | None, first: Tensor | None, second: Tensor | None, scaling: float
) -> tuple[Tensor, Tensor | None]:
    """The layer's output, and `lora_A(x)` if there is an adapter, in the inputs' dtype."""
    dtype = inputs.dtype
    with torch.autocast(inputs.device.type, enabled=False):
        out = nn.functional.linear(inputs, weight.to(dtype), None if bias is None else bias.to(dtype))
        inner = None
        if first is not None and second is not None:
            inner = inputs @ first.to(dtype).t()
            out.addmm_(inner, second.to(dtype).t(), alpha=scaling)
    return out, inner


class _LoraLinear(torch.autograd.Function):
    """x W' + b + scaling * (x A') B', `[T, in] -> [T, out]`, with gradients for x, A `[r, in]` and B `[out, r]`.

    `inputs` is x in the dtype to compute in. Without A and B it is the base layer alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        first: Tensor | None,
        second: Tensor | None,
        scaling: float,
    ) -> Tensor:
        out, inner = _output(inputs, weight, bias, first, second, scaling)
        ctx.scaling = scaling
        # The cast weight is made again in the backward pass: kept, it would double a float32 model's weights.
        ctx.save_for_backward(None if first is None else inputs, inner, weight, first, second)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, inner, weight, first, second = ctx.saved_tensors
        (grad,) = grad_outputs
        of_x = of_first = of_second = None
        dtype = grad.dtype
        with torch.autocast(grad.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                of_x = grad @ weight.to(dtype)
            if inner is not None:
                of_inner = (grad @ second.to(dtype)).mul_(ctx.scaling)
                if of_x is not None:
                    of_x.addmm_(of_inner, first.to(dtype))
                if ctx.needs_input_grad[4]:
                    of_first = (of_inner.t() @ inputs).to(first.dtype)
                if ctx.needs_input_grad[5]:
                    of_second = (grad.t() @ inner).mul_(ctx.scaling).to(second.dtype)
        return of_x, None, None, None, of_first, of_second, None
