"""Mismatched vocabularies: resizing a base to an adapter's vocabulary, and tokens without an embedding."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import PeftConfig, PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_align.errors import LoadError, UserError
from hf_align.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hf_align.models.fingerprint import output_embeddings, read_fingerprint, untuned
from hf_align.models.sources import check_file, find_file, load_config

PREFIX = "base_model.model."
"""Prefix of the names in peft's files."""
WHOLE = ("original_module.weight", "token_adapter.base_layer.weight", "base_layer.weight", "weight")
"""Names under which peft saves whole embeddings: the base's; last those trained instead, or plain ones."""
DELTA = "token_adapter.trainable_tokens_delta"


class Carried(NamedTuple):
    """Embeddings in an adapter's file."""

    tokens: int  # size of the whole vocabulary
    new: Tensor  # [tokens - tokens of the base, d]


def fit_vocabulary(model: Any, path_or_hub_id: str | os.PathLike[str], config: PeftConfig) -> None:
    """Resize a base to an adapter's vocabulary before the adapter is added.

    New tokens get the embeddings stored with the adapter.

    Args:
        model: The base; changed in place.
        path_or_hub_id: The adapter's folder or Hub id.
        config: The adapter's config.

    Raises:
        UserError: The adapter has more tokens than the base, without their embeddings; or its file is broken.
    """
    path, names, count = str(path_or_hub_id), list(_embeddings(model)), embedded_tokens(model)
    file, recorded = find_file(path, ADAPTER_WEIGHTS), read_fingerprint(path)
    if file is not None:
        check_file(file, path)
    carried = {} if file is None else {name: _carried(file, name, count, config) for name in names}
    tokens = None if recorded is None else recorded.vocabulary
    tokens = tokens or next((each.tokens for each in carried.values() if each is not None), count)
    if tokens == count:
        return
    new = {name: each.new for name, each in carried.items() if each is not None and each.tokens == tokens}
    if tokens > count and len(new) < len(names):
        raise UserError(
            f"The adapter in {path} was trained with {tokens} tokens and its base has {count}: the embeddings of the "
            "others are not in it and would be random; save the resized base with save_pretrained and name that folder "
            f"as base_model_name_or_path in {ADAPTER_CONFIG}."
        )
    model.resize_token_embeddings(tokens, mean_resizing=False)
    with torch.no_grad():
        for name, rows in new.items():
            model.get_submodule(name).weight[count:] = rows


def _embeddings(model: Any) -> dict[str, nn.Module]:
    """A model's embeddings by name: the input's, and the output's unless tied."""
    layers = [layer for layer in (model.get_input_embeddings(), output_embeddings(model)) if layer is not None]
    if len(layers) == 2 and untuned(layers[0]).weight is untuned(layers[1]).weight:
        layers.pop()
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(layer)]: layer for layer in layers}


def _carried(file: Path, name: str, count: int, config: PeftConfig) -> Carried | None:
    """The rows beyond the first `count` of the embeddings `name` in an adapter's file; None if some are missing."""
    with safe_open(file, "pt") as weights:
        keys = set(weights.keys())
        for key in (f"{PREFIX}{name}.{suffix}" for suffix in WHOLE):
            if key in keys:
                stored = weights.get_slice(key)
                tokens = stored.get_shape()[0]
                return Carried(tokens, stored[min(count, tokens) :])
        key, trained = f"{PREFIX}{name}.{DELTA}", getattr(config, "trainable_token_indices", None)
        if isinstance(trained, dict):
            trained = trained.get(name.rpartition(".")[2])
        if key not in keys or not trained:
            return None
        tokens = max(count, 1 + max(trained))
        if not set(range(count, tokens)) <= set(trained):
            return None
        return Carried(tokens, weights.get_tensor(key)[[trained.index(row) for row in range(count, tokens)]])


def carry_embeddings(model: PeftModel, folder: str | os.PathLike[str]) -> None:
    """Add the embeddings of a base whose vocabulary differs from the stored one to a saved adapter.

    peft adds them itself, except output embeddings besides input ones under LoRA, and any for a base from the Hub
    without a connection.

    Args:
        model: The adapter's model.
        folder: Its folder.
    """
    base: Any = model.get_base_model()
    file = Path(folder) / ADAPTER_WEIGHTS
    if not file.exists() or not getattr(base, "name_or_path", None):
        return
    try:
        stored = load_config(base.name_or_path).get_text_config().vocab_size
    except LoadError:  # made in memory: it can't be loaded by name
        return
    if stored == base.config.get_text_config().vocab_size:
        return
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights = {names[id(untuned(layer).weight)]: untuned(layer).weight for layer in _embeddings(base).values()}
    with safe_open(file, "pt") as saved:
        missing = weights.keys() - set(saved.keys())
    if missing:
        tensors = {name: weights[name].detach().cpu().contiguous() for name in missing}
        save_file(load_file(file) | tensors, file, {"format": "pt"})


def embedded_tokens(model: Any) -> int:
    """The number of tokens with embeddings in a model."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    weight = untuned(base.get_input_embeddings()).weight
    return cast(int, weight.shape[0] or base.config.get_text_config().vocab_size)  # 0: sharded


def check_token_ids(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Iterable[int]],
    name: str,
    numbers: Iterable[int] | None = None,
) -> None:
    """Refuse tokens without an embedding in the model, which would fail with "index out of range".

    A tokenizer may have more tokens than the model, as long as none of them occurs.

    Args:
        model: The language model or its PeftModel.
        tokenizer: The tokenizer of the ids.
        rows: Token ids of each row.
        name: Name of the rows, for messages.
        numbers: The rows' numbers. Default: counted from 0.

    Raises:
        UserError: Names the row and the token, or the pad token.
    """
    count = embedded_tokens(model)
    if max(len(tokenizer) - 1, *tokenizer.added_tokens_decoder, 0) < count:
        return
    fix = (
        "give the tokenizer that belongs to the model, or resize the model to it with resize_token_embeddings and "
        "save it."
    )
    pad = tokenizer.pad_token_id
    if pad is not None and cast(int, pad) >= count:
        raise UserError(
            f"The tokenizer's pad token '{tokenizer.pad_token}' is token {pad}, and the model has embeddings for "
            f"{count} tokens; set tokenizer.pad_token to another, {fix}"
        )
    for number, ids in zip(itertools.count() if numbers is None else numbers, rows, strict=False):
        if (largest := max(ids, default=0)) >= count:
            raise UserError(
                f"{name}: row {number} has the token '{tokenizer.convert_ids_to_tokens(largest)}' ({largest}), and the "
                f"model has embeddings for {count} tokens; {fix}"
            )
