"""What a traced piece of work asks of a processor: its kernels, products of matrices and passes over memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten


class Product(NamedTuple):
    """`batch` products `[m, k] @ [k, n]`.

    Attributes:
        transposed: Which operands are stored transposed.
    """

    batch: int
    m: int
    k: int
    n: int
    dtype: torch.dtype
    transposed: tuple[bool, bool] = (False, False)

    @property
    def operations(self) -> float:
        """A multiplication and an addition are two."""
        return 2.0 * self.batch * self.m * self.k * self.n

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return float(self.batch * (self.m * self.k + self.k * self.n + self.m * self.n) * self.dtype.itemsize)


class Attention(NamedTuple):
    """Fused attention of queries `[batch, heads, m, size]` on n keys.

    Attributes:
        backward: Whether it is the gradient's, which computes the scores again.
    """

    batch: int
    heads: int
    m: int
    n: int
    size: int
    dtype: torch.dtype
    backward: bool

    @property
    def operations(self) -> float:
        """Of two products, and of five for the gradient: scores again, and those of probabilities, values, queries and
        keys."""
        return (5 if self.backward else 2) * 2.0 * self.batch * self.heads * self.m * self.n * self.size

    @property
    def bytes(self) -> float:
        """Bytes of queries, keys, values and results, and of their gradients."""
        once = 2 * self.batch * self.heads * (self.m + self.n) * self.size * self.dtype.itemsize
        return float(once * (2 if self.backward else 1))


class Pass(NamedTuple):
    """An operation on each of some numbers, bound by reading and writing them: `bytes` in and out."""

    bytes: float
    operations: float = 0.0


Kernel = Product | Attention | Pass
ROWS = {aten.embedding.default, aten.index.Tensor, aten.index_select.default, aten.gather.default}
"""Operations that read only the rows that they give."""
UNREAD = {aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default, aten.empty_strided.default}
"""Operations that neither read nor write."""
ATTENTION = "_scaled_dot_product"


@dataclass(frozen=True)
class Work:
    """Kernels and how often each runs."""

    counts: Mapping[Kernel, float] = field(default_factory=dict)

    @property
    def operations(self) -> float:
        """Floating-point operations of the products."""
        return sum(count * kernel.operations for kernel, count in self.counts.items())

    @property
    def calls(self) -> float:
        """Number of kernels."""
        return sum(self.counts.values())

    def __add__(self, other: Work) -> Work:
        counts = dict(self.counts)
        for kernel, count in other.counts.items():
            counts[kernel] = counts.get(kernel, 0.0) + count
        return Work(counts)

    def __rmul__(self, factor: float) -> Work:
        return Work({kernel: factor * count for kernel, count in self.counts.items()})

    def __sub__(self, other: Work) -> Work:
        return self + -1.0 * other

    def without_negative(self) -> Work:
        """Without kernels of a negative count."""
        return Work({kernel: count for kernel, count in self.counts.items() if count > 0})


def kernels_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Iterator[Kernel]:
    """The kernels of an operation; none of views, and of what neither reads nor writes."""
    outputs = list(tensors_in(result))
    if not outputs or func in UNREAD:
        return
    inputs = list(tensors_in((*args, *kwargs.values())))
    held = {tensor.untyped_storage()._cdata for tensor in inputs}
    if not func._schema.is_mutable and all(each.untyped_storage()._cdata in held for each in outputs):
        return
    name = func.overloadpacket.__name__
    if func in (aten.mm.default, aten.bmm.default):
        yield product(args[0], args[1])
    elif func in (aten.addmm.default, aten.baddbmm.default):
        yield product(args[1], args[2])
    elif func is aten._grouped_mm.default:  # of experts, each with as many rows
        left, right, groups = args[0], args[1], args[2].shape[0]
        rows, inner = left.shape[0], left.shape[1]
        split = (-(-rows // groups), inner) if right.dim() == 3 else (rows, -(-inner // groups))
        yield Product(groups, *split, right.shape[-1], left.dtype)
    elif name.startswith(ATTENTION):
        backward = name.endswith("backward")
        query, key = args[1:3] if backward else args[:2]
        batch, heads, width, size = query.shape
        yield Attention(batch, heads, width, key.shape[2], size, query.dtype, backward)
    elif name == "gemm_4bit":
        rows, columns = args[2]
        yield Pass(float(args[1].nbytes + rows * columns * args[0].dtype.itemsize))
        yield Product(1, args[0].numel() // columns, columns, rows, args[0].dtype, (False, True))
    elif name == "int8_scaled_mm":
        yield Product(1, args[0].shape[0], args[0].shape[1], args[1].shape[0], torch.int8, (False, True))
    elif func in ROWS:
        yield Pass(2.0 * sum(touched(each) for each in outputs))
    else:
        yield Pass(float(sum(map(touched, inputs)) + sum(map(touched, outputs))))


def product(left: Tensor, right: Tensor) -> Product:
    """The product of two matrices or batches of them."""
    batch = left.shape[0] if left.dim() == 3 else 1
    transposed = tuple(each.stride(-1) != 1 and each.shape[-1] > 1 for each in (left, right))
    return Product(batch, left.shape[-2], left.shape[-1], right.shape[-1], left.dtype, (transposed[0], transposed[1]))


def touched(tensor: Tensor) -> int:
    """Bytes of a tensor; what is repeated by expanding it counts once."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Tensors among values and the lists and tuples in them."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors_in(value)


def step_work(args: Any, work: Mapping[str, Work], *, reference: bool) -> dict[str, Work]:
    """The kernels of one optimizer step, by part, with its share of a rollout; the optimizer's own aside.

    A rollout is sampled, scored by the reward, and its tokens by the policy and the reference; the first update takes
    over a pass that scored it.

    Args:
        args: The trainer's config.
        work: Kernels of a micro-batch's "update" and of its "forward" pass alone, and of a rollout those of its
            "prompts", of one "token" of all responses, and of the "rewards".
        reference: Whether the policy is compared with one.
    """
    micro_batches = args.gradient_accumulation_steps
    parts = {"update": micro_batches * work["update"]}
    forward = work["forward"]
    if not hasattr(args, "responses_per_rollout"):
        if reference and not getattr(args, "precompute_ref_log_probs", False):
            parts["reference"] = micro_batches * forward
        return parts
    steps, batches = args.steps_per_rollout, args.num_mini_batches * micro_batches
    sampled = work["prompts"] + (args.max_new_tokens - 1) * work["token"]
    passes = batches * (2 if reference else 1) - 1
    return {
        "rollout": 1 / steps * sampled,
        "scoring": 1 / steps * (work["rewards"] + passes * forward),
        **parts,
    }
