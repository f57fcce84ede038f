"""Loading policies and reward models: plain or quantised, with or without LoRA, from the Hub, a folder or GGUF."""

from __future__ import annotations

import os
from typing import Any

import torch
from peft import PeftModel, TaskType
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
)

from hf_align.errors import UserError
from hf_align.models.adapters import Lora, add_lora
from hf_align.models.decoders import check_decoder_config
from hf_align.models.fingerprint import check_base
from hf_align.models.finite import check_loaded, saved_weights
from hf_align.models.precision import compute_dtype
from hf_align.models.quantized import Quantization, settle
from hf_align.models.sources import adapter_config, base_of, from_pretrained, plain_folder
from hf_align.models.vocabulary import fit_vocabulary


def load_policy(
    model_id_or_path: str | os.PathLike[str],
    *,
    quantization: Quantization = None,
    lora: Lora = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
) -> PreTrainedModel | PeftModel:
    """Load a causal language model to train or to sample from.

    Args:
        model_id_or_path: A Hub id, a model folder, a folder with one .gguf file (dequantised once into the cache), or
            an adapter's Hub id or folder (its base model is loaded with it).
        quantization: "8bit" or "4bit" (NF4, double quantisation) through bitsandbytes, on GPU or CPU; or a
            `BitsAndBytesConfig`. Default: none.
        lora: `True` for rank 16 on all linear layers, a `LoraConfig`, or None. Adapters are always float32.
        dtype: Dtype of unquantised weights. "auto": the checkpoint's, or float32 where this machine computes in
            float32.
        device_map: As in `from_pretrained`. Default: the GPU of this process if the weights are quantised and there
            is one, else CPU; trainers place models themselves.

    Raises:
        UserError: If nothing can be loaded from there, an adapter's base has other weights than those it was trained
            on, or `lora` is given for a model that already is an adapter.

    Example:
        >>> from hf_align import load_policy
        >>> policy = load_policy("HuggingFaceTB/SmolLM2-135M-Instruct", lora=True)
        >>> all("lora" in name for name, weight in policy.named_parameters() if weight.requires_grad)
        True
    """
    path = plain_folder(model_id_or_path)
    adapter = adapter_config(path)
    if adapter is not None and lora:
        raise UserError(f"{path} is already an adapter; leave out lora (peft_config), or merge it into its base first.")
    base = plain_folder(base_of(adapter, path)) if adapter is not None else path
    check_decoder_config(from_pretrained(AutoConfig, base), base)
    model = from_pretrained(AutoModelForCausalLM, base, **loading_arguments(quantization, dtype, device_map))
    settle(model, quantization)
    if adapter is not None:
        check_base(model, path, base, any_vocabulary=True)
        fit_vocabulary(model, path, adapter)
        adapted = PeftModel.from_pretrained(model, path, is_trainable=True)
        check_loaded(saved_weights(adapted), path)
        return adapted
    return add_lora(model, lora, TaskType.CAUSAL_LM) if lora else model


def loading_arguments(quantization: Quantization, dtype: str | torch.dtype, device_map: Any) -> dict[str, Any]:
    """`from_pretrained`'s keyword arguments for these settings."""
    if dtype == "auto" and compute_dtype() == torch.float32:
        dtype = torch.float32
    kwargs: dict[str, Any] = {"dtype": dtype, "device_map": device_map}
    if quantization is None:
        return kwargs
    if device_map is None:
        kwargs["device_map"] = {"": torch.cuda.current_device()} if torch.cuda.is_available() else {"": "cpu"}
    if quantization == "8bit":
        quantization = BitsAndBytesConfig(load_in_8bit=True)
    elif quantization == "4bit":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(),
        )
    elif not isinstance(quantization, BitsAndBytesConfig):
        raise UserError(f"quantization is {quantization!r}; use '8bit', '4bit' or None.")
    return {**kwargs, "quantization_config": quantization}
