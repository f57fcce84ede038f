"""8-bit and 4-bit weights through bitsandbytes, kept in the state with correct gradients on CPUs."""

from __future__ import annotations

import types
from typing import Any, Literal

from torch import nn
from transformers import BitsAndBytesConfig

Quantization = Literal["8bit", "4bit"] | BitsAndBytesConfig | None


def keep_unpacked(model: nn.Module) -> None:
    """Keep bitsandbytes layers in the only state with correct gradients on CPUs.

    In eval mode an avx512_bf16 CPU repacks 4-bit weights for a kernel without autograd, which silently breaks later
    gradients; 8-bit layers compute differently in eval and train mode, so a reference would differ from its policy.
    """
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes"):
            linear: Any = module
            linear.support_avx512bf16_for_cpu = False
            linear.train()
            linear.train = types.MethodType(lambda layer, mode=True: layer, linear)
