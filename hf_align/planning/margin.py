"""What a run takes of a device besides its tensors, and what a plan adds for it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Literal

MAPPED_FROM = 2**20
"""Largest threshold of malloc, in bytes, at which a run's tensors count as mapped by themselves."""
CUBLAS = 2 * 32 * 2**20
"""Bytes of cuBLAS's workspaces, which torch's allocator holds: 32 MiB on H100 and H200, 8 on others, for the thread of
the forward pass and for that of the backward pass."""


@dataclass(frozen=True)
class Margin:
    """What a plan adds to the tensors' peak.

    Attributes:
        share: Share of the bytes of tensors that come and go, for holes between them and what kernels take.
        fixed: Bytes besides.
        source: Where the figures come from, in words.
    """

    share: float
    fixed: float
    source: str

    def needed(self, tensors: float, stays: float = 0.0) -> float:
        """Bytes of the device that a run takes whose tensors take so many at their peak.

        Args:
            tensors: Bytes of all tensors at the peak.
            stays: Bytes of those that are there throughout, such as weights, which leave no holes.
        """
        return tensors + self.share * (tensors - stays) + self.fixed

    def __str__(self) -> str:
        return f"{self.share:.0%} of what comes and goes, and {self.fixed / 2**20:.0f} MiB; {self.source}"


CUDA = Margin(0.1, 0.75 * 2**30, "34 settings on an H200, except CUDA's context, which is assumed")
MAPPED = Margin(0.02, 64 * 2**20, "14 settings on one CPU, of which none took over .5% more than that")
HEAP = Margin(
    1.25,
    320 * 2**20,
    "an upper bound for the holes that freed tensors leave, from 12 settings on one CPU; "
    f"MALLOC_MMAP_THRESHOLD_={2**17} leaves none",
)


def margin_of(kind: Literal["cuda", "cpu"]) -> Margin:
    """The margin on a kind of device; on a CPU by how this process's malloc is set."""
    if kind == "cuda":
        return CUDA
    return MAPPED if maps_tensors() else HEAP


def maps_tensors() -> bool:
    """Whether malloc was told by `MALLOC_MMAP_THRESHOLD_` to map large blocks by themselves (Linux with glibc)."""
    threshold = os.environ.get("MALLOC_MMAP_THRESHOLD_", "")
    return sys.platform == "linux" and threshold.isdigit() and int(threshold) <= MAPPED_FROM
