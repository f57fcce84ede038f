"""Rows of the table: number formats, memory and speed."""

from __future__ import annotations

from typing import Any

from transformers.utils.import_utils import is_liger_kernel_available

from hf_align.trainers.arguments.cells import refused, row, works
from hf_align.trainers.checks import NO_COMPILE


def without_gpu(args: Any) -> str | None:
    """Refuse float16 where autocast would silently stay in float32."""
    if args.device.type != "cpu":
        return None
    return "a CPU computes in bfloat16 or float32; use bf16, or leave it out"


def without_liger(args: Any) -> str | None:
    """Refuse kernels that aren't installed."""
    return None if is_liger_kernel_available() else "liger-kernel isn't installed; pip install it, or leave it out"


def without_use_of_liger(args: Any) -> str | None:
    """Refuse options of kernels that aren't used."""
    return None if args.use_liger_kernel else "it is for use_liger_kernel, which is off; leave it out"


FULL_EVAL = refused(
    "it would turn the trained weights themselves, which are saved afterwards, into 16 bits; leave it out (bf16 and "
    "fp16 hold for evaluations, too)"
)
LIGER = refused(
    "its kernels replace layers of a model of transformers, and this trainer's is a wrapper around one; leave it out "
    "(acceleration, on by default, makes layers faster)"
)
NO_CACHE = refused("no pass of training or scoring can use such a cache, and sampling has its own; leave it out")
COMPILE = refused(NO_COMPILE)

PRECISION = (
    row("bf16", works("None: where the machine is fast at it, else float16 on a GPU; weights stay in float32.")),
    row("fp16", works(unless=without_gpu), untried="a GPU"),
    row("bf16_full_eval", FULL_EVAL),
    row("fp16_full_eval", FULL_EVAL),
    row("tf32", untried="a GPU"),
    row("activation_checkpointing", branches=works("The same as `activation_recompute='full'`.")),
    row("activation_checkpointing_kwargs"),
    row("gradient_checkpointing", works("`Trainer`'s earlier name of `activation_checkpointing`.")),
    row("gradient_checkpointing_kwargs", works("`Trainer`'s earlier name of `activation_checkpointing_kwargs`.")),
    row("torch_compile", branches=COMPILE, untried="minutes of compiling"),
    row("torch_compile_backend", branches=COMPILE, untried="minutes of compiling"),
    row("torch_compile_mode", branches=COMPILE, untried="minutes of compiling"),
    row("use_liger_kernel", branches=LIGER, sft=works(unless=without_liger), untried="a GPU and liger-kernel"),
    row(
        "liger_kernel_config", branches=LIGER, sft=works(unless=without_use_of_liger), untried="a GPU and liger-kernel"
    ),
    row("use_cache", NO_CACHE),
    row("torch_empty_cache_steps"),
)
