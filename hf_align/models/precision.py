"""The dtype that this machine is fast at, and training arguments that follow it."""

from __future__ import annotations

from typing import Any

import torch


def compute_dtype() -> torch.dtype:
    """The dtype this machine is fast at: bfloat16, else float16 on a GPU, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def choose_precision(args: Any) -> None:
    """Settle `bf16=None` of training arguments: bfloat16 where the machine is fast at it, else float16 on GPUs.

    Args:
        args: With `bf16`, `fp16` and `use_cpu`, which are set; not yet through `TrainingArguments.__post_init__`.
    """
    if args.bf16 is None:
        dtype = compute_dtype()
        on_wrong_device = args.use_cpu and torch.cuda.is_available()
        args.bf16 = dtype == torch.bfloat16 and not args.fp16 and not on_wrong_device
        args.fp16 = args.fp16 or (dtype == torch.float16 and not on_wrong_device)
    if args.bf16 and not torch.accelerator.is_available():
        args.use_cpu = True  # TrainingArguments refuses bf16 on a machine without a GPU unless this is said
