"""This machine's fast dtype and its speed, and training arguments set accordingly."""

from __future__ import annotations

import time
from typing import Any

import torch

SMALLEST, LARGEST, REPEATS = 64, 1024, 8
"""Sizes of the square matrices multiplied to measure the CPU, and the number of repeats."""
LONG_ENOUGH = 0.01
"""Seconds of a product after which no larger one is tried: some processors take seconds for it in bfloat16."""


def compute_dtype() -> torch.dtype:
    """This machine's fast dtype: bfloat16, else float16 on a GPU, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def choose_precision(args: Any) -> None:
    """Resolve `bf16=None` of training arguments: bfloat16 if the machine is fast at it, else float16 on GPUs.

    Args:
        args: Arguments before `TrainingArguments.__post_init__`; sets `bf16`, `fp16` and `use_cpu`.
    """
    if args.bf16 is None:
        dtype = compute_dtype()
        on_wrong_device = args.use_cpu and torch.cuda.is_available()
        args.bf16 = dtype == torch.bfloat16 and not args.fp16 and not on_wrong_device
        args.fp16 = args.fp16 or (dtype == torch.float16 and not on_wrong_device)
    if args.bf16 and not torch.accelerator.is_available():
        args.use_cpu = True  # otherwise TrainingArguments refuses bf16 on a machine without a GPU


def multiplications_per_second(dtype: torch.dtype) -> float:
    """Floating-point operations per second of the CPU in square matrix products; the best of several repeats."""
    side, seconds = SMALLEST // 2, 0.0
    while seconds < LONG_ENOUGH and side < LARGEST:
        side *= 2
        matrix = torch.ones(side, side, dtype=dtype)
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            times.append(time.perf_counter() - start)
        seconds = min(times)
    return 2 * side**3 / seconds
