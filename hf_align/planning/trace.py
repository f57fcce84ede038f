"""A run of real code on tensors without data, in which the bytes alive and the operations are counted.

Weights and hidden states are fake tensors: they have a shape, a dtype and a storage of some size, and every operation
on them gives another one, forward and backward, by the rules that torch.compile uses. Small tensors of indices stay
real, so that code that looks at them works.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hf_align.layout.branches import Branches
from hf_align.planning.work import Kernel, Work, kernels_of, tensors_in

MOST_EXPERTS = 512
"""Choices from which a selection of the largest is not one of experts."""
LARGE = 2**20
"""Bytes from which a new tensor that no other determines, such as a mask of zeros, gets no data."""


@dataclass(frozen=True)
class Measured:
    """What a traced piece of work takes.

    Attributes:
        peak: Maximum bytes of the tensors that it made, weights aside.
        work: Its kernels.
        forward: Those of its forward pass, if it marked its end.
    """

    peak: float
    work: Work = field(default_factory=Work)
    forward: Work = field(default_factory=Work)

    @property
    def operations(self) -> float:
        """Floating-point operations of its matrix products and attention, a multiplication and an addition counted as
        two."""
        return self.work.operations

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.peak + other.peak, self.work + other.work, self.forward + other.forward)

    def __sub__(self, other: Measured) -> Measured:
        return self + -1.0 * other

    def __rmul__(self, factor: float) -> Measured:
        return Measured(factor * self.peak, factor * self.work, factor * self.forward)


def new_fakes() -> FakeTensorMode:
    """A world of fake tensors, in which real ones may take part."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class Trace(TorchDispatchMode):
    """Count the bytes of tensors made inside this context while they are alive.

    Args:
        fakes: The mode of the fake tensors inside.
        given: Tensors that exist already and don't count.
        device: Type of device planned for, whose kernels take memory besides their results.

    Attributes:
        live: Bytes now.
        peak: Their maximum.
        kernels: How often each kernel ran.
        forward: Those of the forward pass.
    """

    def __init__(self, fakes: FakeTensorMode, given: Iterable[Tensor] = (), *, device: str = "cuda"):
        super().__init__()
        self.fakes, self.device = fakes, device
        self.live = self.peak = 0.0
        self.kernels: Counter[Kernel] = Counter()
        self.forward: dict[Kernel, int] = {}
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in given:
            self._note(tensor, counts=False)

    def measured(self) -> Measured:
        """What was counted until now."""
        return Measured(self.peak, Work(dict(self.kernels)), Work(self.forward))

    def mark_forward(self) -> None:
        """Note the end of the forward pass."""
        self.forward = dict(self.kernels)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count its results."""
        if func is torch.ops.prim.device.default:  # half of all calls: fake tensors are asked for their device
            return func(*args)
        kwargs = kwargs or {}
        if func is torch.ops.aten.bincount.default and isinstance(args[0], FakeTensor):
            return args[0].new_empty(kwargs["minlength"])
        if func is torch.ops.aten._grouped_mm.default and isinstance(args[0], FakeTensor):
            result = grouped(*args[:3])
        else:
            result = self._run(func, args, kwargs)
        if func is torch.ops.aten.topk.default and isinstance(result[1], FakeTensor):
            result = (result[0], evenly(result[1], args[0].shape[-1]))
        self.kernels.update(kernels_of(func, args, kwargs, result))
        for tensor in tensors_in(result):
            self._note(tensor)
        if (workspace := WORKSPACES.get(func.overloadpacket)) is not None:
            self.peak = max(self.peak, self.live + workspace(args))
        elif self.device == "cpu" and torch.Tag.pointwise in func.tags:
            self.peak = max(self.peak, self.live + _converted(args))
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if any(True for _ in tensors_in((*args, *kwargs.values()))):
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


def evenly(chosen: Tensor, choices: int) -> Tensor:
    """The indices of experts `[..., k]` that a router gives, with data: each expert gets as many tokens.

    Which one a token gets depends on values, which a trace doesn't have, and decides the shapes of all that follows.
    """
    if choices > MOST_EXPERTS:
        return chosen
    return (torch.arange(chosen.numel()) % choices).view(chosen.shape)


def grouped(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    """The result of a product of groups of rows with a matrix each, of which torch's own rule knows only bfloat16.

    Rows of `[M, K]` by `[E, K, N]` give `[M, N]`; groups of columns of `[K, M]` by rows of `[M, N]` give `[E, K, N]`.
    """
    shape = (left.shape[0], right.shape[-1])
    return left.new_empty(shape if right.dim() == 3 else (ends.shape[0], *shape))


def _dequantised(args: Any) -> float:
    """The weight `[N, K]` that a 4-bit product unpacks to multiply by it, with its scales, one per 64 weights."""
    inputs, _, (rows, columns) = args[:3]
    return rows * columns * (inputs.dtype.itemsize + 4 / 64)


def _int32_sums(args: Any) -> float:
    """The int32 sums of an 8-bit product: of `[T, K]` and `[N, K]`."""
    return 4.0 * args[0].shape[0] * args[1].shape[0]


def _outliers(args: Any) -> float:
    """The search for outliers before an 8-bit product on a GPU: sizes in 16 bits, and which are large."""
    return 3.0 * args[0].numel()


def _converted(args: Any) -> float:
    """Copies that a CPU makes of tensors of several dtypes to work on them element by element; a GPU makes none."""
    tensors = [each for each in args if isinstance(each, Tensor) and each.dim() and each.is_floating_point()]
    if len({each.dtype for each in tensors}) < 2:
        return 0.0
    common = reduce(torch.promote_types, (each.dtype for each in tensors))
    return float(sum(each.numel() * common.itemsize for each in tensors if each.dtype != common))


WORKSPACES: dict[Any, Callable[[Any], float]] = {}
"""Bytes that an operation takes besides its results, which no trace sees, from its arguments."""


def count_quantised() -> None:
    """Know what bitsandbytes' products take; it is loaded only for models that use it."""
    import bitsandbytes  # noqa: F401  # registers its operations

    WORKSPACES[torch.ops.bitsandbytes.gemm_4bit] = _dequantised
    WORKSPACES[torch.ops.bitsandbytes.int8_scaled_mm] = _int32_sums
    WORKSPACES[torch.ops.bitsandbytes.int8_vectorwise_quant] = _outliers


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
