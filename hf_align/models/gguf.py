"""GGUF files, dequantised once into plain model folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
)

from hf_align.errors import UserError
from hf_align.files import whole_folder
from hf_align.models.padding import set_distinct_pad_token


def convert_gguf(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Dequantise the one .gguf file in the folder `source` into a plain model folder `target` (float32, safetensors).

    GGUF models can't be quantised again, saved or trained as they are. The folder's pad token is not EOS, as reward
    models need it (`set_distinct_pad_token`). It appears whole or not at all.
    """
    files = sorted(Path(source).glob("*.gguf"))
    if len(files) != 1:
        raise UserError(f"{source} holds {len(files)} .gguf files; name a folder with exactly one.")
    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=files[0].name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=files[0].name)
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    set_distinct_pad_token(tokenizer, model.config)
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    with whole_folder(target) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return Path(target)
