"""A run of real code on tensors without data, in which the bytes alive and the operations are counted.

Weights and hidden states are fake tensors: they have a shape, a dtype and a storage of some size, and every operation
on them gives another one, forward and backward, by the rules that torch.compile uses. Small tensors of indices stay
real, so that code that looks at them works.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hf_align.layout.branches import Branches

LARGE = 2**20
"""Bytes from which a new tensor that no other determines, such as a mask of zeros, gets no data."""


@dataclass(frozen=True)
class Measured:
    """What a traced piece of work takes.

    Attributes:
        peak: Maximum bytes of the tensors that it made, weights aside.
        operations: Floating-point operations of its matrix products and attention, a multiplication and an addition
            counted as two.
        forward: Those of its forward pass, if it marked its end.
    """

    peak: float
    operations: float
    forward: float = 0.0

    def __add__(self, other: Measured) -> Measured:
        forward = self.forward + other.forward
        return Measured(self.peak + other.peak, self.operations + other.operations, forward)

    def __sub__(self, other: Measured) -> Measured:
        return self + -1.0 * other

    def __rmul__(self, factor: float) -> Measured:
        return Measured(factor * self.peak, factor * self.operations, factor * self.forward)


def new_fakes() -> FakeTensorMode:
    """A world of fake tensors, in which real ones may take part."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class Trace(TorchDispatchMode):
    """Count the bytes of tensors made inside this context while they are alive.

    Args:
        fakes: The mode of the fake tensors inside.
        given: Tensors that exist already and don't count.

    Attributes:
        live: Bytes now.
        peak: Their maximum.
        operations, forward: As in `Measured`.
    """

    def __init__(self, fakes: FakeTensorMode, given: Iterable[Tensor] = ()):
        super().__init__()
        self.fakes = fakes
        self.live = self.peak = self.operations = self.forward = 0.0
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in given:
            self._note(tensor, counts=False)

    def measured(self) -> Measured:
        """What was counted until now."""
        return Measured(self.peak, self.operations, self.forward)

    def mark_forward(self) -> None:
        """Note the end of the forward pass."""
        self.forward = self.operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count its results."""
        kwargs = kwargs or {}
        if func is torch.ops.aten.bincount.default and isinstance(args[0], FakeTensor):
            return args[0].new_empty(kwargs["minlength"])
        result = self._run(func, args, kwargs)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **kwargs, out_val=result)
        if (workspace := WORKSPACES.get(func.overloadpacket)) is not None:
            self.peak = max(self.peak, self.live + workspace(args))
            self.operations += _quantised_operations(func, args, result)
        for tensor in _tensors(result):
            self._note(tensor)
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if any(True for _ in _tensors((*args, *kwargs.values()))):
            return func(*args, **kwargs)
        with self.fakes:
            result = func(*args, **kwargs)
        return result if isinstance(result, Tensor) and result.nbytes >= LARGE else func(*args, **kwargs)

    def _note(self, tensor: Tensor, *, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        number = storage._cdata
        if number in self._known:
            return
        size = storage.nbytes() if counts else 0
        self.live += size
        self.peak = max(self.peak, self.live)

        def freed(_: Any) -> None:
            del self._known[number]
            self.live -= size

        self._known[number] = weakref.ref(storage, freed)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)


def _dequantised(args: Any) -> float:
    """The weight `[N, K]` that a 4-bit product unpacks to multiply by it, with its scales, one per 64 weights."""
    inputs, _, (rows, columns) = args[:3]
    return rows * columns * (inputs.dtype.itemsize + 4 / 64)


def _int32_sums(args: Any) -> float:
    """The int32 sums of an 8-bit product: of `[T, K]` and `[N, K]`."""
    return 4.0 * args[0].shape[0] * args[1].shape[0]


def _quantised_operations(func: Any, args: Any, result: Tensor) -> float:
    columns = args[2][1] if func.overloadpacket is torch.ops.bitsandbytes.gemm_4bit else args[1].shape[1]
    return 2.0 * result.numel() * columns


WORKSPACES: dict[Any, Callable[[Any], float]] = {}
"""Bytes that an operation takes besides its results, which no trace sees, from its arguments."""


def count_quantised() -> None:
    """Know what bitsandbytes' products take; it is loaded only for models that use it."""
    import bitsandbytes  # noqa: F401  # registers its operations

    WORKSPACES[torch.ops.bitsandbytes.gemm_4bit] = _dequantised
    WORKSPACES[torch.ops.bitsandbytes.int8_scaled_mm] = _int32_sums


@dataclass(frozen=True)
class TracedBranches(Branches):
    """A batch whose indices are real and whose attention mask `[R, 1, T, T]` has no data.

    Attributes:
        fakes: The mode of its mask.
    """

    fakes: FakeTensorMode | None = None

    @classmethod
    def of(cls, branches: Branches, fakes: FakeTensorMode) -> TracedBranches:
        """A batch to trace."""
        return cls(**vars(branches), fakes=fakes)

    def attention_mask(self) -> Tensor:
        """As `Branches.attention_mask`, without data in the branch layout."""
        if self.separate or self.fakes is None:
            return super().attention_mask()
        values = {**vars(self), "fakes": None}
        values |= {name: self.fakes.from_tensor(values[name]) for name in ("doc_ids", "branch_ids")}
        return TracedBranches(**values).attention_mask()
