"""Adapters merged into their base model: exact in float32, whatever the base was quantised to while training."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from hf_align.errors import UserError
from hf_align.hub.staging import link_or_copy, rewrite
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel
from hf_align.models.sources import adapter_config, base_of, from_pretrained, load_tokenizer, plain_folder
from hf_align.models.value import ADAPTER_FOLDER, HEAD_FILE, MODEL_FOLDER


def merge_adapter(
    folder: str | os.PathLike[str], target: str | os.PathLike[str], dtype: torch.dtype | None = None
) -> list[str]:
    """Save a model with its adapter merged in, for plain transformers.

    The base model is loaded unquantised in float32, the adapter added to it there, and the sum rounded to `dtype` once.
    A base that was saved in 8 or 4 bits is dequantised first.

    Args:
        folder: An adapter's folder: of a policy, with or without a value head, or of a reward model.
        target: Gets the model, its tokenizer and, if it still fits, its value head.
        dtype: Of the saved weights. Default: the base model's own; float32 for a reward model, whose scores rounding to
            bfloat16 moves by some hundredths.

    Returns:
        What was left out, in words: a value adapter belongs on the base model and fits no merged one.

    Raises:
        UserError: If the folder holds no adapter, or its base model can't be loaded.
    """
    folder, target = Path(folder), Path(target)
    config = adapter_config(str(folder))
    if config is None:
        raise UserError(f"{folder} holds no adapter, so there is nothing to merge.")
    base = plain_folder(base_of(config, str(folder)))
    target.mkdir(parents=True, exist_ok=True)
    scratch = target / ".merging"
    try:
        source = _on_unquantized_base(folder, base, scratch)
        if config.task_type == "SEQ_CLS":
            _merge_reward_model(source, target, dtype or torch.float32)
            return []
        _merge_policy(source, base, target, dtype)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _add_value_head(folder, target)


def _merge_policy(source: Path, base: str, target: Path, dtype: torch.dtype | None) -> None:
    policy = cast(Any, load_policy(source, dtype=torch.float32))
    model = policy.merge_and_unload().to(dtype or _own_dtype(base))
    model.save_pretrained(target)
    load_tokenizer(source).save_pretrained(target)


def _merge_reward_model(source: Path, target: Path, dtype: torch.dtype) -> None:
    adapted = RewardModel.from_pretrained(source, dtype=torch.float32)
    model = cast(Any, adapted.model).merge_and_unload().to(dtype)
    RewardModel(model, adapted.tokenizer, adapted.reward_config).save_pretrained(target)


def _own_dtype(base: str) -> torch.dtype:
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    dtype = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float32


def _on_unquantized_base(folder: Path, base: str, scratch: Path) -> Path:
    """The adapter's folder; of a base that was saved quantised, a copy of it on a dequantised base."""
    if getattr(AutoConfig.from_pretrained(base, trust_remote_code=False), "quantization_config", None) is None:
        return folder
    model = from_pretrained(AutoModelForCausalLM, base, trust_remote_code=False, dtype=torch.float32)
    model = model.dequantize().float()
    model.save_pretrained(scratch / "base", save_original_format=False)  # its packed format, that would be
    load_tokenizer(base).save_pretrained(str(scratch / "base"))
    for path in folder.iterdir():
        if path.is_file():
            link_or_copy(path, scratch / "adapter" / path.name)
    config = scratch / "adapter" / "adapter_config.json"
    rewrite(config, json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": str(scratch / "base")})
    return scratch / "adapter"


def _add_value_head(folder: Path, target: Path) -> list[str]:
    if not (folder / HEAD_FILE).exists():
        return []
    with safe_open(folder / HEAD_FILE, "pt") as file:
        kind = (file.metadata() or {}).get("value_model")
    if kind == "adapter":
        return [f"the value head: its adapter ({ADAPTER_FOLDER}/) belongs on the base model"]
    link_or_copy(folder / HEAD_FILE, target / HEAD_FILE)
    for path in (folder / MODEL_FOLDER).rglob("*"):
        if path.is_file() and path.name != "README.md":
            link_or_copy(path, target / path.relative_to(folder))
    return []
