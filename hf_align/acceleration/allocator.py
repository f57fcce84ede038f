"""On a CPU, let the process reuse the memory that tensors free, instead of fetching it from the system again.

glibc gives large blocks back as soon as they are freed, so each intermediate result of a training step begins as pages
that the kernel has to fetch and clear when they are first written. That costs more than the elementwise operations
themselves: silu's gradient of 1,152 x 1,536 numbers in bfloat16 took 3.3 ms, and takes 0.6 ms in memory that is there;
a PPO update of SmolLM2-135M in bfloat16 is 10 to 15% faster, a DPO step in float32 up to 5%. The peak doesn't rise:
the next tensors go where the last ones were.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGE = 2**30
_OLD_LARGEST = 2**25  # what glibc before 2.35 takes at most as the second
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Keep what is freed for the next tensors, up to 1 GiB at the heap's end; once a process.

    Nothing happens on other systems than Linux with glibc, where tensors live on a GPU, or where the user has set
    malloc's environment variables.

    Returns:
        Whether the setting was made.
    """
    if sys.platform != "linux" or torch.cuda.is_available() or any(name in os.environ for name in _OF_THE_USER):
        return False
    libc: Any = ctypes.CDLL(None)
    trims = hasattr(libc, "mallopt") and libc.mallopt(_TRIM_THRESHOLD, _LARGE)
    return bool(trims and (libc.mallopt(_MMAP_THRESHOLD, _LARGE) or libc.mallopt(_MMAP_THRESHOLD, _OLD_LARGEST)))


def release_freed_memory() -> None:
    """Give the system back what is free now, where `keep_freed_memory` keeps it."""
    if keep_freed_memory():
        ctypes.CDLL(None).malloc_trim(0)
