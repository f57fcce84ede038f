"""Models on the meta device given fake weights for a trace, quantised ones as bitsandbytes holds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import BitsAndBytesConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.quantizers.base import get_keys_to_not_convert

BLOCK, SCALES_PER_BLOCK = 64, 256
"""4-bit weights that share a scale, and 8-bit scales that share a float32 scale of their own (double quantisation)."""
TABLES = 4 * (16 + 256) + 4
"""Bytes of a 4-bit layer's tables: the 16 values of NF4, the 256 of its scales, and the scales' offset."""


def quantise_on_meta(model: Any, quantization: str, compute: torch.dtype) -> None:
    """Put bitsandbytes' layers in the place of a model's linear layers, as loading it quantised does."""
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if quantization == "8bit"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    )
    replace_with_bnb_linear(model, get_keys_to_not_convert(model), config)
    setattr(model, f"is_loaded_in_{quantization}", True)
    model.is_quantized, model.quantization_method = True, config.quantization_method()


def bits_of(module: nn.Module) -> int | None:
    """4 or 8 for one of bitsandbytes' layers, None for any other."""
    if not type(module).__module__.startswith("bitsandbytes"):
        return None
    return {"Linear4bit": 4, "Linear8bitLt": 8}.get(type(module).__name__)


def stored_bytes(module: nn.Module, name: str, weight: Tensor) -> float:
    """Bytes of a module's parameter as loaded.

    4 bits take .5 + 1/64 + 4/(64 * 256) bytes a weight: a scale of 8 bits for 64 weights, and one of 32 for 256 of
    these. 8 bits take a float32 scale per row.
    """
    bits = bits_of(module) if name == "weight" else None
    if bits == 4:
        return weight.numel() * (0.5 + 1 / BLOCK + 4 / (BLOCK * SCALES_PER_BLOCK)) + TABLES
    return weight.numel() + 4.0 * weight.shape[0] if bits == 8 else weight.nbytes


@contextmanager
def faked(model: nn.Module, mode: FakeTensorMode, device: str) -> Iterator[list[Tensor]]:
    """Give a model on the meta device fake weights inside this context.

    Args:
        model: The model; tied weights stay tied.
        mode: The mode of the fake tensors.
        device: Type of the device that is planned for: 8-bit layers compute differently on GPUs and CPUs.

    Yields:
        The weights.
    """
    fakes: dict[int, Tensor] = {}
    originals: list[tuple[dict[str, Any], str, Any]] = []
    modes = [(module, module.training) for module in model.modules() if bits_of(module) == 8]
    with mode:
        for module in model.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is None or not tensor.is_meta:
                        continue
                    originals.append((table, name, tensor))
                    if id(tensor) not in fakes:
                        fakes[id(tensor)] = _fake(module, name, tensor)
                    table[name] = fakes[id(tensor)]  # type: ignore[assignment]
    for module, _ in modes:  # in training mode a tensor on the CPU takes the CPU's way
        module.training = device == "cpu"
    try:
        yield list(fakes.values())
    finally:
        for table, name, tensor in originals:
            table[name] = tensor
        for module, training in modes:
            module.training = training


def _fake(module: Any, name: str, tensor: Tensor) -> Tensor:
    bits = bits_of(module) if name == "weight" else None
    if bits == 4:
        return _packed(module, tensor)
    if bits == 8:
        weight: Any = nn.Parameter(torch.empty(tensor.shape, dtype=torch.int8), requires_grad=False)
        module.state.CB, module.state.SCB = weight.data, torch.empty(tensor.shape[0])
        module.state.threshold = 0.0  # its few columns of outliers depend on the data
        weight.CB = weight.SCB = None
        return weight
    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(fake, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def _packed(module: Any, tensor: Tensor) -> Tensor:
    """A 4-bit layer's weight with its state of quantisation."""
    from bitsandbytes.functional import QuantState  # loads the compiled part

    blocks = -(-tensor.numel() // BLOCK)
    weight: Any = nn.Parameter(torch.empty(-(-tensor.numel() // 2), 1, dtype=torch.uint8), requires_grad=False)
    scales = QuantState(
        absmax=torch.empty(-(-blocks // SCALES_PER_BLOCK)),
        code=torch.empty(256),
        blocksize=SCALES_PER_BLOCK,
        dtype=torch.float32,
    )
    weight.quant_state = QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8),
        shape=tensor.shape,
        code=torch.empty(16),
        blocksize=BLOCK,
        quant_type=module.weight.quant_type,
        dtype=module.compute_dtype,
        offset=torch.empty(()),
        state2=scales,
    )
    return weight
