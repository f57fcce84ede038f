"""Selective activation recompute: results of large matrix products are kept, cheap operations are repeated.

About half of the tensors that autograd saves in a decoder layer come from operations that cost next to nothing: norms,
activations, rotary embeddings, copies of keys and values for grouped heads, casts, a LoRA adapter's second product.
While a layer runs, each such tensor is recorded as a *recipe*: the operation and its inputs, down to tensors that are
kept anyway. Autograd then saves the recipe, and the backward pass follows it.

A recipe repeats the same kernels on the same inputs, below autograd and autocast. So gradients are bitwise those
without recomputation, and it doesn't matter which adapter, autocast or random state is active during the backward pass:
unlike with checkpointing, no module runs a second time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_align.errors import UserError

SMALL_CONTRACTION = 128
"""A product that contracts at most this many numbers is cheap: LoRA's second product, scores of eager attention."""
SMALL_SHARE = 8
"""Tensors smaller than a layer's input divided by this are kept: not worth a recipe."""

PLAIN = (Tensor, FakeTensor)
"""Classes of tensors without behaviour of their own; those of a trace have no data."""

_aten = torch.ops.aten
_CHEAP = {
    *(_aten._to_copy, _aten.cat, _aten.stack, _aten.repeat, _aten.index_select),
    *(_aten.native_layer_norm, _aten._fused_rms_norm, _aten._softmax, _aten._log_softmax),
}
_PRODUCTS = {_aten.mm: 0, _aten.bmm: 0, _aten.addmm: 1, _aten.baddbmm: 1}
"""Matrix products, with the index of an argument whose last dimension is contracted."""


def enable_selective_recompute(model: nn.Module) -> None:
    """Let the decoder layers of `model` recompute cheap operations whenever they run in train mode with gradients.

    Args:
        model: A transformers or PEFT model, or a wrapper of some. `activation_checkpointing_disable()` undoes it.

    Raises:
        UserError: The model has no decoder layers that transformers could checkpoint, or uses FlexAttention, a single
            compiled operation that can't be recorded.
    """
    if getattr(getattr(model, "config", None), "_attn_implementation", None) == "flex_attention":
        raise UserError(
            "activation_recompute='selective' doesn't work with attn_implementation='flex_attention'; use 'full', or "
            "load the model with attn_implementation='sdpa'."
        )
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"activation_recompute='selective' needs decoder layers of transformers, and {type(model).__name__} has "
            "none; use 'none'."
        )
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = recompute_cheap  # type: ignore[assignment]


def recompute_cheap(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function(*args)`, a decoder layer's forward, with recipes saved for its cheap intermediate results."""
    if not torch.is_grad_enabled():
        return function(*args)
    inputs = [*args, *getattr(function, "keywords", {}).values()]  # a partial of the layer's forward
    hidden = next(x for x in inputs if isinstance(x, Tensor) and x.is_floating_point())
    recorder = _Recorder(hidden.nbytes // SMALL_SHARE, hidden.device.type)
    with saved_tensors_hooks(recorder.pack, recorder.unpack), recorder:
        result = function(*args)
    recorder.made.clear()
    return result


@dataclass(frozen=True, slots=True)
class _Kept:
    """A tensor that stays in memory: a layer's input, a weight, the result of a large product."""

    tensor: Tensor
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A cheap operation; tensors among its arguments are `_Kept` or `_Recipe`."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Recipe:
    """A tensor that isn't kept: a view of one of a call's outputs."""

    call: _Call
    output: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class _Made:
    """Origin of a storage. The weak reference keeps the storage's number from being reused."""

    storage: StorageWeakRef
    call: _Call
    output: int
    dtype: torch.dtype


class _Recorder(TorchDispatchMode):
    """Record of the cheap operations in one pass through one layer, in place of the tensors autograd would save.

    Args:
        smallest: Bytes below which a tensor is kept.
        device: The type of the layer's device.
    """

    _latest: weakref.ref[_Recorder] | None = None  # the one whose results the backward pass is using

    def __init__(self, smallest: int, device: str):
        super().__init__()
        self.smallest, self.device, self.autocast = smallest, device, torch.is_autocast_enabled(device)
        self.made: dict[int, _Made] = {}
        self.results: dict[_Call, tuple[Any, ...]] = {}

    # ---- forward ----

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record it if it is cheap."""
        kwargs = kwargs or {}
        # bitsandbytes' 4-bit operation may end in a plain product, in bfloat16 under autocast, which is off inside a
        # dispatch mode: without this the policy would differ from a reference, whose passes have no recipes.
        inside = func.namespace != "aten" and self.autocast
        with torch.autocast(self.device, torch.get_autocast_dtype(self.device)) if inside else nullcontext():
            result = func(*args, **kwargs)
        product = _PRODUCTS.get(func.overloadpacket)
        small = product is not None and args[product].shape[-1] <= SMALL_CONTRACTION and not func._schema.is_mutable
        if small or _is_cheap(func):
            self._note(func, args, kwargs, result)
        elif func._schema.is_mutable:
            for tensor in _tensors((args, tuple(kwargs.values()))):
                self.made.pop(_number(tensor), None)  # changed in place: no longer the recorded call's result
        return result

    def _note(self, op: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        inputs = {_number(tensor) for tensor in _tensors((args, tuple(kwargs.values())))}
        if not all(type(x) in PLAIN and not x.is_complex() and _number(x) not in inputs for x in outputs):
            return
        shrinks = op is _aten._to_copy.default and outputs[0].nbytes < args[0].nbytes
        if shrinks and not isinstance(args[0], nn.Parameter) and self._recipe(args[0]) is None:
            return  # its larger input, not kept otherwise, would have to be kept instead
        call = _Call(op, _map(self._source, args), {name: _map(self._source, arg) for name, arg in kwargs.items()})
        for index, output in enumerate(outputs):
            storage = output.untyped_storage()
            self.made[storage._cdata] = _Made(StorageWeakRef(storage), call, index, output.dtype)

    def _source(self, tensor: Tensor) -> _Kept | _Recipe:
        # Not detached: that would start a new version counter. This creates no cycle, since whatever holds a recipe is
        # further down the graph than the recipe's inputs.
        return self._recipe(tensor) or _Kept(tensor, tensor._version)

    def _recipe(self, tensor: Tensor) -> _Recipe | None:
        made = self.made.get(_number(tensor))
        if made is None or made.dtype != tensor.dtype:
            return None
        return _Recipe(made.call, made.output, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    def pack(self, tensor: Tensor) -> Tensor | _Recipe:
        """The tensor itself, or a recipe for autograd to save instead."""
        return tensor if tensor.nbytes < self.smallest else self._recipe(tensor) or tensor

    # ---- backward ----

    def unpack(self, packed: Tensor | _Recipe) -> Tensor:
        """Restore the packed tensor in the backward pass."""
        if isinstance(packed, Tensor):
            return packed
        latest = _Recorder._latest and _Recorder._latest()
        if latest is not self:
            if latest is not None:
                latest.results.clear()  # the backward pass has left the previous layer
            _Recorder._latest = weakref.ref(self)
        with torch.no_grad(), torch.autocast(self.device, enabled=False):
            return self._value(packed)

    def _value(self, source: _Kept | _Recipe) -> Tensor:
        if isinstance(source, _Kept):
            if source.tensor._version != source.version:
                raise RuntimeError(
                    "A tensor that selective recompute needs was changed in place after it had been used; this model "
                    "needs activation_recompute='full' or 'none'."
                )
            return source.tensor
        outputs = self.results.get(source.call)
        if outputs is None:
            call = source.call
            result = call.op(
                *_map(self._value, call.args), **{name: _map(self._value, arg) for name, arg in call.kwargs.items()}
            )
            outputs = self.results[call] = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        output = outputs[source.output]
        view = source.size, source.stride, source.offset
        same = (tuple(output.shape), output.stride(), output.storage_offset()) == view
        return output if same else output.as_strided(*view)


@cache
def _is_cheap(op: Any) -> bool:
    """Whether an operation is deterministic and reads and writes every number about once."""
    cheap = op.overloadpacket in _CHEAP or torch.Tag.pointwise in op.tags or torch.Tag.reduction in op.tags
    return cheap and not op._schema.is_mutable and torch.Tag.nondeterministic_seeded not in op.tags


def _number(tensor: Tensor) -> int:
    """Identifier of a tensor's storage while it lives."""
    return tensor.untyped_storage()._cdata


def _tensors(arguments: Any) -> Iterator[Tensor]:
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, (tuple, list)):
        for argument in arguments:
            yield from _tensors(argument)


def _map(function: Callable[[Any], Any], argument: Any) -> Any:
    """`argument` with `function` applied to every tensor, `_Kept` and `_Recipe` in its lists and tuples."""
    if isinstance(argument, (Tensor, _Kept, _Recipe)):
        return function(argument)
    if isinstance(argument, (tuple, list)):
        return type(argument)(_map(function, part) for part in argument)
    return argument
