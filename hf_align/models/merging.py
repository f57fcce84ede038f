"""Merging adapters into their base model: exact in float32, whatever the base's quantisation in training."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from huggingface_hub import HfApi
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from hf_align.errors import UserError
from hf_align.files import ADAPTER_CONFIG, VALUE_ADAPTER_FOLDER, VALUE_HEAD, VALUE_MODEL_FOLDER, whole_folder
from hf_align.hub.push import PushedFolder, check_bases, check_push, create_repo, facts_for, push_stage
from hf_align.hub.staging import link_or_copy, name_bases, new_stage, rewrite
from hf_align.model_cards import CARD_FILES
from hf_align.models.finite import nonfinite_weight
from hf_align.models.loading import load_policy
from hf_align.models.lora_targets import merged_into_base
from hf_align.models.reward import check_target, merge_saved
from hf_align.models.sources import adapter_config, base_of, from_pretrained, load_tokenizer, plain_folder


def merge_adapter(
    folder: str | os.PathLike[str], target: str | os.PathLike[str], dtype: torch.dtype | None = None
) -> list[str]:
    """Save a model with its adapter merged, for plain transformers.

    The base model is loaded unquantised in float32, the adapter is added, and the sum is rounded to `dtype` once. A
    base that was saved in 8 or 4 bits is dequantised first.

    Args:
        folder: Folder of an adapter: a policy's, with or without a value head, or a reward model's.
        target: Destination of the model, its tokenizer and, if it still fits, its value head; an existing model is
            replaced. The folder appears whole or not at all.
        dtype: Dtype of the saved weights. Default: the base model's, or float32 for a reward model, since rounding to
            bfloat16 moves scores by some hundredths.

    Returns:
        Parts left out, in words: a value adapter belongs on the base model and doesn't fit a merged one.

    Raises:
        UserError: The folder holds no adapter, its base model can't be loaded, or `target` exists and isn't a model.
    """
    folder, target = Path(folder), Path(target)
    config = adapter_config(str(folder))
    if config is None:
        raise UserError(f"{folder} holds no adapter, so there is nothing to merge.")
    check_target(target)
    base = plain_folder(base_of(config, str(folder)))
    with whole_folder(target) as unfinished, TemporaryDirectory(prefix=".merging-", dir=target.parent) as scratch:
        source = _on_unquantized_base(folder, base, Path(scratch))
        if config.task_type == "SEQ_CLS":
            dtype = dtype or torch.float32
            _save_finite(merge_saved(source, dtype), dtype, unfinished)
            return []
        policy, dtype = cast(PeftModel, load_policy(source, dtype=torch.float32)), dtype or _own_dtype(base)
        _save_finite(cast(Any, merged_into_base(policy)).to(dtype), dtype, unfinished)
        load_tokenizer(source).save_pretrained(str(unfinished))
        return _add_value_head(folder, unfinished)


def _save_finite(merged: Any, dtype: torch.dtype, folder: Path) -> None:
    """Save merged weights, unless their sum or its rounding is more than `dtype` holds."""
    if (name := nonfinite_weight(dict(merged.named_parameters()))) is not None:
        raise UserError(f"The weight {name} merged into {dtype} is NaN or infinite; merge into float32 or bfloat16.")
    merged.save_pretrained(folder)


def push_merged(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    dtype: torch.dtype | None = None,
    base_model: str | None = None,
    private: bool | None = None,
    license: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a model with hf-align",
    token: str | None = None,
) -> PushedFolder:
    """Push a saved adapter as whole weights, with its tokenizer, heads and card.

    Args:
        folder: As in `hf_align.hub.push_model`, which also explains the other arguments.
        repo_id: Likewise.
        dtype: Dtype of the merged weights; see `merge_adapter`.
        base_model: Hub id of the base model, for the card, if it was loaded from a local folder.
        private: Whether a new repository is private.
        license: License in the card.
        revision: Branch to push to.
        commit_message: Message of the commit.
        token: Default: the one of `hf auth login` or HF_TOKEN.

    Raises:
        UserError: The folder holds no adapter, its base model can't be loaded, or the Hub or the connection fails.
    """
    folder = check_push(folder, repo_id)
    if not (folder / ADAPTER_CONFIG).exists():
        raise UserError(f"{folder} holds no adapter, so there is nothing to merge; leave out merge (--merge).")
    api = HfApi(token=token)
    stage = new_stage(folder)
    try:
        repo_id = create_repo(api, repo_id, private)  # fails before the work of merging
        left_out = merge_adapter(folder, stage, dtype)
        for name in CARD_FILES:
            if (folder / name).exists():
                link_or_copy(folder / name, stage / name)
        name_bases(stage, folder, base_model)
        check_bases(api, stage)
        facts = facts_for(folder, stage, base_model, merged=True, license=license)
        return push_stage(api, folder, stage, repo_id, facts, commit_message, revision, left_out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _own_dtype(base: str) -> torch.dtype:
    config = from_pretrained(AutoConfig, base)
    dtype = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float32


def _on_unquantized_base(folder: Path, base: str, scratch: Path) -> Path:
    """The adapter's folder, or if the base was saved quantised, a copy on a dequantised base."""
    if getattr(from_pretrained(AutoConfig, base), "quantization_config", None) is None:
        return folder
    quantized = from_pretrained(AutoModelForCausalLM, base, dtype=torch.float32)
    # The original format would be packed.
    quantized.dequantize().float().save_pretrained(scratch / "base", save_original_format=False)
    load_tokenizer(base).save_pretrained(str(scratch / "base"))
    for path in filter(Path.is_file, folder.iterdir()):
        link_or_copy(path, scratch / "adapter" / path.name)
    config = scratch / "adapter" / ADAPTER_CONFIG
    rewrite(config, json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": str(scratch / "base")})
    return scratch / "adapter"


def _add_value_head(folder: Path, target: Path) -> list[str]:
    """Link a policy's value head into `target` if it fits a merged base; return the parts that don't, in words."""
    if not (folder / VALUE_HEAD).exists():
        return []
    with safe_open(folder / VALUE_HEAD, "pt") as file:
        kind = (file.metadata() or {}).get("value_model")
    if kind == "adapter":
        return [f"the value head: its adapter ({VALUE_ADAPTER_FOLDER}/) belongs on the base model"]
    link_or_copy(folder / VALUE_HEAD, target / VALUE_HEAD)
    for path in (folder / VALUE_MODEL_FOLDER).rglob("*"):
        if path.is_file() and path.name != "README.md":
            link_or_copy(path, target / path.relative_to(folder))
    return []
