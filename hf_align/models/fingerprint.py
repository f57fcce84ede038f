"""Fingerprints of base models: some numbers of every weight, which identify the base of an adapter.

A base's name says little: its weights may have been changed in memory, or its folder rewritten. So each saved adapter
has a fingerprint of its base beside it, which is compared wherever two models are taken to share a base.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers.integrations.bitsandbytes import dequantize_bnb_weight
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from hf_align.errors import LoadError, UserError
from hf_align.files import ADAPTER_CONFIG, BASE_FINGERPRINT, write_json
from hf_align.models.sources import find_file
from hf_align.models.stored import StoredWeights, is_packed, is_quantised_from

logger = logging.get_logger(__name__)

VERSION = 1
COLUMNS, TOKENS = 4, 256
"""Numbers per sampled row, and rows of a vocabulary per digest."""
BF16_STEP, FLOAT16_STEP = 2**-7, 6e-8
"""Relative step of bfloat16 and smallest step of float16: the tolerance for rounding to either."""
OUTPUT = "lm_head.weight"
"""Name of untied output embeddings; classifiers have none."""
REWRITING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations of peft that subtract an adapter's initial value from the base's weights."""


class BaseDiffers(UserError):
    """An adapter's base has other weights than those it was trained on."""


@dataclass(frozen=True)
class Sample:
    """Sampled numbers of one weight.

    Attributes:
        shape: Shape of the weight.
        values: `[n]` float32 at bfloat16 precision: `COLUMNS` numbers each of the rows 0, 1, 4, 16, ...
        vocabulary: Whether rows are tokens, so that another number of rows means more or fewer tokens.
        tokens: Digests of one column of a vocabulary, `TOKENS` rows each: a change of any single token shows.
        rounded: Whether the values went through float16 or quantisation and may be off by a rounding step.
    """

    shape: tuple[int, ...]
    values: Tensor
    vocabulary: bool = False
    tokens: tuple[str, ...] = ()
    rounded: bool = False

    @classmethod
    def of(cls, weight: Tensor, *, vocabulary: bool = False, rounded: bool = False) -> Sample:
        """Take the sample of a weight `[rows, ...]`."""
        weight, rounded = weight.detach(), rounded or weight.dtype == torch.float16
        picked = weight[_sampled_rows(weight.shape[0])]
        while picked.ndim > 2:
            picked = picked[:, picked.shape[1] // 2]
        if picked.ndim == 2:
            picked = picked[:, _sampled_columns(picked.shape[1])]
        tokens: tuple[str, ...] = ()
        if vocabulary and not rounded:
            column = weight[:, weight.shape[1] // 2].to(torch.bfloat16).cpu().view(torch.int16).numpy()
            parts = [column[start : start + TOKENS].tobytes() for start in range(0, len(column), TOKENS)]
            tokens = tuple(hashlib.blake2b(part, digest_size=4).hexdigest() for part in parts)
        values = picked.flatten().to(torch.bfloat16).float().cpu()
        return cls(tuple(weight.shape), values, vocabulary, tokens, rounded)

    @classmethod
    def of_stored(cls, stored: Any) -> Sample:
        """Take the sample of a stored matrix without reading the rest of it."""
        rows, columns = stored.get_shape()
        values = torch.cat([stored[row : row + 1, _sampled_columns(columns)] for row in _sampled_rows(rows)])
        rounded = values.dtype == torch.float16
        return cls((rows, columns), values.flatten().to(torch.bfloat16).float(), rounded=rounded)

    def agrees(self, other: Sample) -> bool:
        """Whether both may come from the same weight, compared in their common rows."""
        if self.shape[1:] != other.shape[1:] or (self.shape[0] != other.shape[0] and not self.vocabulary):
            return False
        count = min(len(self.values), len(other.values))
        first, second = self.values[:count], other.values[:count]
        if self.rounded or other.rounded:
            return torch.allclose(first, second, rtol=BF16_STEP, atol=FLOAT16_STEP, equal_nan=True)
        parts = None if self.shape == other.shape else min(self.shape[0], other.shape[0]) // TOKENS
        same = (first == second) | (first.isnan() & second.isnan())
        return bool(same.all()) and self.tokens[:parts] == other.tokens[:parts]

    def to_json(self) -> dict[str, Any]:
        """The sample as JSON values."""
        numbers = self.values.to(torch.bfloat16).view(torch.int16).numpy().astype("<i2").tobytes()
        flags = {name: True for name in ("vocabulary", "rounded") if getattr(self, name)}
        tokens = {"tokens": "".join(self.tokens)} if self.tokens else {}
        return {"shape": list(self.shape), "values": base64.b64encode(numbers).decode(), **tokens, **flags}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Sample:
        """Make a sample from the result of `to_json`."""
        numbers = torch.frombuffer(bytearray(base64.b64decode(entry["values"])), dtype=torch.int16)
        digests = str(entry.get("tokens", ""))
        return cls(
            shape=tuple(int(size) for size in entry["shape"]),
            values=numbers.view(torch.bfloat16).float(),
            vocabulary=bool(entry.get("vocabulary")),
            tokens=tuple(digests[start : start + 8] for start in range(0, len(digests), 8)),
            rounded=bool(entry.get("rounded")),
        )


def _sampled_rows(count: int) -> list[int]:
    return [row for row in (0, *(4**power for power in range(12))) if row < count]


def _sampled_columns(count: int) -> slice:
    start = max(0, count // 2 - COLUMNS // 2)
    return slice(start, start + COLUMNS)


@dataclass(frozen=True)
class Fingerprint:
    """Samples of a base model's weights by name, such as `layers.0.mlp.up_proj.weight`.

    Attributes:
        samples: Samples of the backbone, and of untied output embeddings, without adapters.
        partial: Whether some weights aren't sampled: on other processes, changed by an adapter's initialisation, or
            biases that an adapter trains.
    """

    samples: dict[str, Sample]
    partial: bool = False

    def differing(self, other: Fingerprint, *, any_vocabulary: bool = False) -> list[str]:
        """Names of the weights in which two bases differ.

        Args:
            other: The other base's fingerprint.
            any_vocabulary: One may have more tokens than the other.
        """
        names = []
        for name in (both := [name for name in self.samples if name in other.samples]):
            ours, theirs = self.samples[name], other.samples[name]
            if not ours.agrees(theirs) or (ours.shape != theirs.shape and not any_vocabulary):
                names.append(name)
        if not both or not (self.partial or other.partial):
            names += sorted((self.samples.keys() ^ other.samples.keys()) - {OUTPUT})
        return names

    @property
    def digest(self) -> str | None:
        """A short form for records and tables; None without samples. Weights that are the same have the same one."""
        samples = {name: sample.to_json() for name, sample in sorted(self.samples.items())}
        return hashlib.blake2b(json.dumps(samples).encode(), digest_size=16).hexdigest() if samples else None

    @property
    def vocabulary(self) -> int | None:
        """The number of tokens; None if the embeddings couldn't be sampled."""
        return next((sample.shape[0] for sample in self.samples.values() if sample.vocabulary), None)


def fingerprint_of(model: nn.Module, state_dict: dict[str, Tensor] | None = None) -> Fingerprint:
    """Compute the fingerprint of a model's base weights in memory, ignoring adapters.

    Quantised weights count as their source weights if all of those are still stored at the model's source, otherwise as
    their dequantised values.

    Args:
        model: A transformers model or its PeftModel.
        state_dict: Its weights, if its parameters are sharded.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    given = state_dict or {}
    whole = {id(parameter): given[name] for name, parameter in model.named_parameters() if name in given}
    stored = StoredWeights(getattr(base, "name_or_path", None) or "")
    embeddings, head = untuned(base.get_input_embeddings()), untuned(output_embeddings(base))
    vocabularies = [layer.weight for layer in (embeddings, head) if layer is not None]
    samples: dict[str, Sample] = {}
    packed: dict[str, tuple[Any, Any]] = {}
    partial = False
    for name, layer, weight in _base_weights(model, base):
        tensor = None if weight is None else whole.get(id(weight), weight)
        if tensor is None or tensor.numel() == 0 or tensor.is_meta or hasattr(tensor, "placements"):
            partial = True
        elif tensor is weight and is_packed(layer) and tensor is layer.weight:
            packed[name] = layer, stored.find(f"{base.base_model_prefix}.{name}", name)
        elif tensor.ndim:
            samples[name] = Sample.of(tensor, vocabulary=any(weight is other for other in vocabularies))
    from_stored = all(is_quantised_from(layer, original, base.dtype) for layer, original in packed.values())
    for name, (layer, original) in packed.items():
        samples[name] = Sample.of_stored(original) if from_stored else _unpacked(layer)
    return Fingerprint(samples, partial)


def _base_weights(model: nn.Module, base: Any) -> Iterator[tuple[str, Any, nn.Parameter | None]]:
    """`_weights` of a model's base with its head, if it has one of its own; None also for what its adapter changes."""
    configs = model.peft_config.values() if isinstance(model, PeftModel) else ()
    trains_biases = any(getattr(config, "bias", "none") != "none" for config in configs)  # the adapter's file has them
    for name, layer, weight in _weights(base.base_model, "", any(map(rewrites_base, configs))):
        yield name, layer, None if trains_biases and name.endswith("bias") else weight
    embeddings, head = untuned(base.get_input_embeddings()), untuned(output_embeddings(base))
    if head is not None and head.weight is not embeddings.weight:
        yield OUTPUT, head, head.weight


def _weights(module: nn.Module, prefix: str, skip_tuned: bool) -> Iterator[tuple[str, Any, nn.Parameter | None]]:
    """A base's weights with their names and layers, without adapters; None for weights to leave out."""
    if (isinstance(module, BaseTunerLayer) and skip_tuned) or isinstance(module, FullyShardedDataParallel):
        yield prefix, module, None
        return
    module = untuned(module)
    for name, parameter in module.named_parameters(recurse=False):
        yield prefix + name, module, parameter
    for name, child in module.named_children():
        yield from _weights(child, f"{prefix}{name}.", skip_tuned)


def untuned(module: Any) -> Any:
    """The base's layer inside a peft wrapper, if any."""
    while isinstance(module, AuxiliaryTrainingWrapper | BaseTunerLayer):
        module = module.original_module if isinstance(module, AuxiliaryTrainingWrapper) else module.get_base_layer()
    return module


def output_embeddings(model: Any) -> Any:
    """A model's LM head, None for a classifier."""
    return getattr(model, "get_output_embeddings", lambda: None)()


def _unpacked(layer: Any) -> Sample:
    """Sample of a weight quantised by bitsandbytes, in the orientation of stored models."""
    weight = dequantize_bnb_weight(layer.weight, getattr(layer, "state", None))
    transposed = issubclass(getattr(layer, "source_cls", nn.Linear), Conv1D)
    return Sample.of(weight.T if transposed else weight, rounded=True)


def has_float32_base(model: PeftModel) -> bool:
    """Whether a PeftModel's base is unquantised and in float32, so that an adapter can be merged into it directly."""
    weights = [weight for _, _, weight in _weights(model.get_base_model(), "", skip_tuned=False)]
    return all(w is not None and w.dtype == torch.float32 and not hasattr(w, "placements") for w in weights)


def rewrites_base(config: PeftConfig) -> bool:
    """Whether peft subtracted this adapter's initial value from the base's weights."""
    init = getattr(config, "init_lora_weights", None)
    return isinstance(init, str) and init.lower().startswith(REWRITING_INITS)


# ---- beside a saved adapter ----


def write_fingerprint(
    model: nn.Module, folder: str | os.PathLike[str], state_dict: dict[str, Tensor] | None = None
) -> None:
    """Write the fingerprint of a PeftModel's base in memory beside its saved adapter."""
    fingerprint = fingerprint_of(model, state_dict)
    if fingerprint.samples:
        samples = {name: sample.to_json() for name, sample in fingerprint.samples.items()}
        write_json(
            Path(folder) / BASE_FINGERPRINT,
            {"version": VERSION, "partial": fingerprint.partial, "samples": samples},
        )


def read_fingerprint(path_or_hub_id: str | os.PathLike[str]) -> Fingerprint | None:
    """The fingerprint of the base that an adapter was trained on; None if none is recorded.

    Raises:
        LoadError: The file can't be read.
    """
    path = str(path_or_hub_id)
    file = find_file(path, BASE_FINGERPRINT)
    try:
        content = None if file is None else json.loads(file.read_text(encoding="utf-8"))
        if content is None or content["version"] > VERSION:
            return None
        samples = {name: Sample.from_json(entry) for name, entry in content["samples"].items()}
        return Fingerprint(samples, bool(content["partial"]))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise LoadError(
            f"{file} can't be read ({error}); save the adapter again, or remove the file to load it unchecked.", path
        ) from error


def check_base(
    model: nn.Module, path_or_hub_id: str | os.PathLike[str], base: str, *, any_vocabulary: bool = False
) -> None:
    """Refuse a base with other weights than those that an adapter was trained on.

    Args:
        model: The base in memory, with or without adapters.
        path_or_hub_id: The adapter's folder or Hub id. For one without a record (old ones, or saved by peft alone) a
            log line says that nothing was compared.
        base: Name of the base in messages.
        any_vocabulary: Whether it may have more or fewer tokens, because it is resized later.

    Raises:
        BaseDiffers: Names the weights.
    """
    recorded = read_fingerprint(path_or_hub_id)
    if recorded is None:
        logger.warning(unrecorded(path_or_hub_id, base))
    elif names := recorded.differing(fingerprint_of(model), any_vocabulary=any_vocabulary):
        raise BaseDiffers(
            f"The adapter in {path_or_hub_id} was trained on a base with other weights than {base}: {listed(names)}. "
            "Save the base it was trained on with save_pretrained and name that folder as base_model_name_or_path in "
            f"{ADAPTER_CONFIG}."
        )


def unrecorded(path_or_hub_id: str | os.PathLike[str], base: str) -> str:
    """Log line about an adapter whose base can't be compared."""
    return (
        f"The adapter in {path_or_hub_id} has no {BASE_FINGERPRINT}, so whether {base} has the weights it was trained "
        "on is not checked."
    )


def listed(names: list[str]) -> str:
    """The first differing weights, and the number of others, in words."""
    shown = ", ".join(names[:2])
    return f"{shown} and {len(names) - 2} more differ" if len(names) > 2 else f"{shown} differ{'s' * (len(names) == 1)}"
