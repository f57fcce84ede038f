"""8-bit and 4-bit weights through bitsandbytes, kept in the state with correct gradients on CPUs."""

from __future__ import annotations

import types
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from hf_align.errors import UserError

Quantization = Literal["8bit", "4bit"] | BitsAndBytesConfig | None


def settle(model: nn.Module, quantization: Quantization) -> None:
    """Bring a model that was just loaded into the state in which it is trained and scored.

    Raises:
        UserError: It reads quantised weights without calling their layers.
    """
    keep_unpacked(model)
    if quantization is not None:
        _check_quantized(model)
        _close_checkpoint(model)


@torch.no_grad()
def _check_quantized(model: nn.Module) -> None:
    """Refuse quantised weights that a model reads without calling their layers, as state-space mixers do.

    Raises:
        UserError: The model fails; the message has the error and how to leave such layers out.
    """
    if not any(isinstance(module, nn.Conv1d) for module in model.modules()):
        return
    ids = torch.ones(1, 2, dtype=torch.long, device=next(model.parameters()).device)
    try:
        cast(Any, model)(input_ids=ids, use_cache=False)
    except RuntimeError as error:
        raise UserError(
            f"{type(model).__name__} doesn't run on quantised weights, some of which it reads without calling their "
            f"layers ({str(error).splitlines()[0]}); leave quantization out, or name such layers in "
            "llm_int8_skip_modules of a BitsAndBytesConfig."
        ) from error


def _close_checkpoint(model: nn.Module) -> None:
    """Copy the weights that quantisation left alone, so that a CPU lets go of the checkpoint's file.

    They are views of the mapped file, whose pages, those of the quantised weights too, would count as this process's
    memory for as long as a view is alive: a model in 4 bits would take more than the one in 16 bits.
    """
    plain: dict[int, Tensor] = {}  # tied weights once
    for module in model.modules():
        quantized = type(module).__module__.startswith("bitsandbytes")
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and tensor.device.type == "cpu" and not (quantized and name == "weight"):
                plain[id(tensor)] = tensor
    for tensor in plain.values():
        tensor.data = tensor.data.clone()


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
