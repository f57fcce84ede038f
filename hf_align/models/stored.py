"""Stored weights: slices of single tensors, read by name without loading the rest."""

from __future__ import annotations

import json
import math
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hf_align.models.sources import find_file

MOST_OTHER_CODES = 0.02
"""Share of quantised numbers that may differ by rounding, for instance between processors."""


class StoredWeights:
    """The safetensors files of a model folder or Hub id; they are opened when a tensor is first read.

    Args:
        source: The model's source. Missing files and other formats count as empty.
    """

    def __init__(self, source: str):
        self.source = source
        self._open: dict[str, Any] = {}

    @cached_property
    def _file_of(self) -> dict[str, str]:
        """The file of each tensor."""
        if not self.source:
            return {}
        if (index := find_file(self.source, "model.safetensors.index.json")) is not None:
            return json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        file = self._file("model.safetensors")
        return {} if file is None else dict.fromkeys(file.keys(), "model.safetensors")

    def _file(self, name: str) -> Any:
        if name not in self._open:
            path = find_file(self.source, name)
            self._open[name] = None if path is None else safe_open(path, "pt")
        return self._open[name]

    def find(self, *names: str) -> Any:
        """The first of these tensors that is stored, as an indexable slice, or None."""
        for name in names:
            if name in self._file_of and (file := self._file(self._file_of[name])) is not None:
                return file.get_slice(name)
        return None


def is_packed(module: nn.Module) -> bool:
    """Whether bitsandbytes has quantised a layer's weight."""
    weight = getattr(module, "weight", None)
    return type(weight).__name__ in ("Params4bit", "Int8Params") and not getattr(weight, "has_fp16_weights", False)


def is_quantised_from(layer: Any, stored: Any, dtype: torch.dtype) -> bool:
    """Whether quantising a stored tensor gives a layer's numbers, judged by some rows.

    Args:
        layer: A linear layer of bitsandbytes.
        stored: A slice of the stored tensor, or None if it is missing.
        dtype: Dtype in which the model was loaded.
    """
    if stored is None:
        return False
    weight, functional = layer.weight, import_module("bitsandbytes").functional
    is_4bit = type(weight).__name__ == "Params4bit"
    shape = list(weight.quant_state.shape if is_4bit else weight.shape)
    transposed = issubclass(getattr(layer, "source_cls", nn.Linear), Conv1D)
    if stored.get_shape() != (shape[::-1] if transposed else shape):
        return False
    count = min(shape[0], weight.blocksize // math.gcd(shape[1], weight.blocksize) if is_4bit else 1)
    start = shape[0] // 2 // count * count
    rows: Tensor = stored[:, start : start + count].T if transposed else stored[start : start + count]
    if not rows.is_floating_point():  # stored quantised, too
        return False
    rows = rows.to(weight.device, weight.quant_state.dtype if is_4bit else dtype).contiguous()
    if is_4bit:
        codes = functional.quantize_4bit(rows, blocksize=weight.blocksize, quant_type=weight.quant_type)[0]
        first = start * shape[1] // 2
        numbers = weight.data.view(torch.uint8).flatten()[first : first + codes.numel()]
    else:
        codes, numbers = functional.int8_vectorwise_quant(rows.half())[0], weight.data[start : start + count]
    return bool((codes.flatten() != numbers.flatten()).float().mean() <= MOST_OTHER_CODES)
