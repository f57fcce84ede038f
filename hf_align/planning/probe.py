"""This machine's speed, measured when it is first asked for: seconds of the very kernels that a piece of work has."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.nn import functional

from hf_align.acceleration.allocator import keep_freed_memory
from hf_align.planning.work import Attention, Kernel, Pass, Product, Work

SECONDS = 5.0
"""Seconds that all measurements of a process may take together."""
LARGEST_PRODUCT, LARGEST_PASS = 2e9, 2.0**28
"""Operations and bytes of the largest kernels that are run; larger ones take as much longer as they have more."""
REPEATS, LEAST = 3, 1e-3
"""Measurements, of which the median counts, and least seconds of each."""


@dataclass
class Probe:
    """Seconds of kernels on this machine, each size measured once.

    Attributes:
        device: "cpu" or "cuda".
        left: Seconds still to be spent on measuring.
        measured: Seconds of each kernel that was run.
        call: Seconds that Python adds to an operation; None: not measured yet.
        clock: The clock.
    """

    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")
    left: float = SECONDS
    measured: dict[Kernel, float] = field(default_factory=dict)
    call: float | None = None
    clock: Callable[[], float] = time.perf_counter

    def seconds(self, work: Work) -> float:
        """Seconds of a piece of work. On a GPU kernels run while the next ones are started."""
        if self.call is None:
            self.call = self._call_seconds()
        ranked = sorted(work.counts, key=lambda kernel: -work.counts[kernel] * _rough(kernel))
        undo = keep_freed_memory() if self.device == "cpu" else None
        try:
            total = sum(work.counts[kernel] * self._kernel_seconds(kernel) for kernel in ranked)
        finally:
            if undo is not None:
                undo()
        calls = work.calls * self.call
        return max(total, calls) if self.device == "cuda" else total + calls

    def described(self) -> str:
        """What was measured."""
        measured = self.measured.items()
        rates = [each.operations / seconds / 1e9 for each, seconds in measured if isinstance(each, Product)]
        streams = [each.bytes / seconds / 1e9 for each, seconds in measured if isinstance(each, Pass)]
        threads = f" with {torch.get_num_threads()} threads" if self.device == "cpu" else ""
        return (
            f"this machine{threads}, measured now: {len(rates)} products at up to {max(rates, default=0):.0f} GFLOP/s, "
            f"{len(streams)} passes over memory at up to {max(streams, default=0):.0f} GB/s"
        )

    def _kernel_seconds(self, kernel: Kernel) -> float:
        small = smaller(kernel)
        if small not in self.measured:
            if self.left <= 0:
                return self._as_similar(kernel)
            start = self.clock()
            self.measured[small] = self._run(small)
            self.left -= self.clock() - start
        return self.measured[small] * size_of(kernel) / size_of(small)

    def _as_similar(self, kernel: Kernel) -> float:
        """Seconds at the rate of the measured kernel of the same kind whose size is nearest."""
        same = [each for each in self.measured if type(each) is type(kernel)]
        if not same:
            return _rough(kernel)
        nearest = min(same, key=lambda each: abs(math.log(size_of(each) / size_of(kernel))))
        return self.measured[nearest] * size_of(kernel) / size_of(nearest)

    def _run(self, kernel: Kernel) -> float:
        if isinstance(kernel, Product):
            return self._clock(_product(kernel, self.device))
        if isinstance(kernel, Attention):
            return self._clock(_attention(kernel, self.device))
        return self._clock(_passes(kernel, self.device)) / PASSES

    def _clock(self, function: Callable[[], object]) -> float:
        """Seconds of a call: the median of a few measurements."""
        once = self._time(function, 1)
        times = max(1, min(1000, int(LEAST / max(once, 1e-7))))
        return statistics.median(self._time(function, times) for _ in range(REPEATS))

    def _time(self, function: Callable[[], object], times: int) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        start = self.clock()
        for _ in range(times):
            function()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return (self.clock() - start) / times

    def _call_seconds(self) -> float:
        """What Python and autograd add to an operation, from operations on a few numbers."""
        weight = torch.ones(8, 8, device=self.device, requires_grad=True)
        inputs = torch.ones(8, 8, device=self.device)

        def several() -> None:
            (functional.silu(functional.linear(inputs, weight)) * inputs).sum().backward()

        return self._clock(several) / 8  # 4 forward, 4 backward


PASSES = 5
"""Operations that are run together for a pass."""


def smaller(kernel: Kernel) -> Kernel:
    """The kernel that is run for it: of a size rounded, so that similar ones are run once, and no larger than most."""
    if isinstance(kernel, Pass):
        rounded = 2.0 ** (round(2 * math.log2(max(kernel.bytes, 64.0))) / 2)
        return Pass(min(rounded, LARGEST_PASS))
    while kernel.operations > LARGEST_PRODUCT:
        sizes = ("batch", "m", "k", "n") if isinstance(kernel, Product) else ("batch", "heads", "m", "n")
        name = max(sizes, key=lambda each: getattr(kernel, each))
        kernel = kernel._replace(**{name: -(-getattr(kernel, name) // 2)})
    return kernel


def size_of(kernel: Kernel) -> float:
    """Operations of a product, bytes of a pass; never 0."""
    return max(1.0, kernel.bytes if isinstance(kernel, Pass) else kernel.operations)


def _rough(kernel: Kernel) -> float:
    """Seconds on some processor, to tell large kernels from small ones."""
    return kernel.operations / 1e11 + kernel.bytes / 1e10


def _product(kernel: Product, device: str) -> Callable[[], object]:
    batch, m, k, n, dtype, (first, second) = kernel
    lead = (batch,) if batch > 1 else ()
    left = torch.ones(*lead, *((k, m) if first else (m, k)), device=device).to(dtype)
    right = torch.ones(*lead, *((n, k) if second else (k, n)), device=device).to(dtype)
    left, right = (left.mT if first else left), (right.mT if second else right)
    if dtype == torch.int8:
        return lambda: torch._int_mm(left, right)  # type: ignore[attr-defined]
    return lambda: torch.matmul(left, right)


def _attention(kernel: Attention, device: str) -> Callable[[], object]:
    batch, heads, m, n, size, dtype, backward = kernel
    shapes = ((batch, heads, m, size), (batch, heads, n, size), (batch, heads, n, size))
    query, key, value = (torch.ones(shape, device=device, dtype=dtype).requires_grad_(backward) for shape in shapes)
    mask = torch.ones(batch, 1, m, n, device=device, dtype=torch.bool)
    forward = partial(functional.scaled_dot_product_attention, query, key, value, attn_mask=mask)
    if not backward:
        return forward
    gradient, output = torch.ones(shapes[0], device=device, dtype=dtype), forward()
    return lambda: torch.autograd.grad(output, (query, key, value), gradient, retain_graph=True)


def _passes(kernel: Pass, device: str) -> Callable[[], object]:
    """Elementwise operations such as a step's, on as many bytes in the mean: of 12, 6, 8, 8 and 4 a number."""
    numbers = max(1, int(kernel.bytes / 7.6))
    left, right = torch.ones(numbers, device=device), torch.ones(numbers, device=device)

    def several() -> None:
        _ = left * right, left.to(torch.bfloat16), functional.silu(left), left.pow(2), left.sum()

    return several


PROBE = Probe()
"""This process's measurements."""
