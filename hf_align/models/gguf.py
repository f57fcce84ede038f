"""GGUF files, dequantised once into plain model folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
)
from transformers.utils.import_utils import is_gguf_available

from hf_align.errors import UserError
from hf_align.files import whole_folder
from hf_align.models.padding import set_distinct_pad_token


def convert_gguf(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Dequantise the one .gguf file in the folder `source` into a plain model folder `target` (float32, safetensors).

    GGUF models can't be quantised again, saved or trained directly. The folder's pad token is not EOS, as needed by
    reward models (`set_distinct_pad_token`). It appears whole or not at all.
    """
    files = sorted(Path(source).glob("*.gguf"))
    if len(files) != 1:
        raise UserError(f"{source} holds {len(files)} .gguf files; name a folder with exactly one.")
    with _parsed_once():
        name = files[0].name
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name, trust_remote_code=False)
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    set_distinct_pad_token(tokenizer, model.config)
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    with whole_folder(target) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return Path(target)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Cache the gguf package's parsing, which transformers repeats three times per file and once per module."""
    if not is_gguf_available():  # transformers' error says what to install
        yield
        return
    package: Any = import_module("gguf")
    reader, name_map = package.GGUFReader, package.get_tensor_name_map

    class PlainReader(reader):
        """Reader on a plain array over the mapped file, whose slices cost a third of a memmap's."""

        data = property(
            lambda self: self.__dict__["data"], lambda self, mapped: self.__dict__.update(data=np.asarray(mapped))
        )

    package.GGUFReader, package.get_tensor_name_map = cache(PlainReader), cache(name_map)
    try:
        yield
    finally:
        package.GGUFReader, package.get_tensor_name_map = reader, name_map
