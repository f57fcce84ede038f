"""Where a model computes."""

from __future__ import annotations

from typing import Any

import torch

from hf_align.models.ensemble import members_of
from hf_align.models.quantized import Quantization


def to_gpu(model: Any, quantization: Quantization) -> Any:
    """Move a model, or an ensemble's members, to the GPU if there is one; quantised weights are already there."""
    if torch.cuda.is_available() and quantization is None:
        for member in members_of(model):
            member.to("cuda")
    return model
