"""Checks for NaN or infinite weights: a single one makes all results NaN."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor, nn

from hf_align.errors import LoadError

INDEX = "model.safetensors.index.json"


def saved_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that saving writes, by name: the trained ones for a model with an adapter."""
    adapted = any(isinstance(module, PeftModel) for module in (model, getattr(model, "model", None)))
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad or not adapted}


@torch.no_grad()
def nonfinite_weight(weights: Mapping[str, Any]) -> str | None:
    """Name of the first weight that contains a NaN or infinite number, or None.

    Integers, such as quantised weights, are skipped; of sharded weights this process's part is checked. Synchronises
    with each device once.
    """
    parts = {name: getattr(weight, "to_local", lambda weight=weight: weight)() for name, weight in weights.items()}
    names = [name for name, part in parts.items() if part.is_floating_point() and part.numel()]
    suspects: set[str] = set()
    for device in {parts[name].device for name in names}:
        here = [name for name in names if parts[name].device == device and device.type != "meta"]
        # A sum is finite only if all its numbers are. It takes a tenth of the time of their maximum, and no copy.
        sums = [parts[name].sum(dtype=torch.float32) for name in here]
        finite = torch.stack(sums).isfinite().tolist() if here else []
        suspects |= {name for name, sound in zip(here, finite, strict=True) if not sound}
    # The sum of finite numbers may be too large.
    broken = (name for name in names if name in suspects and not parts[name].isfinite().all())
    return next(broken, None)


def check_loaded(weights: Mapping[str, Any], path: str) -> None:
    """Refuse a model or adapter with weights that aren't finite.

    Raises:
        LoadError: Names the weight, and the file if it is in a folder.
    """
    if (name := nonfinite_weight(weights)) is not None:
        raise _broken(path, name, _file_of(path, name))


def check_files(path: str) -> None:
    """Check a folder's files, for weights that are quantised on loading, which hides NaN.

    Raises:
        LoadError: Names weight and file.
    """
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            if (name := next(_nonfinite_names(tensors), None)) is not None:
                raise _broken(path, name, file.name)


def _nonfinite_names(tensors: Any) -> Iterator[str]:
    for name in tensors.keys():  # noqa: SIM118 (no dict)
        if nonfinite_weight({name: tensors.get_tensor(name)}) is not None:
            yield name


def _file_of(path: str, name: str) -> str | None:
    folder = Path(path)
    if (folder / INDEX).exists():
        return json.loads((folder / INDEX).read_text())["weight_map"].get(name)
    names = ("adapter_model.safetensors", "model.safetensors", "pytorch_model.bin")
    return next((file for file in names if (folder / file).exists()), None)


def _broken(path: str, name: str, file: str | None) -> LoadError:
    where = f"in {file} of '{path}'" if file else f"of '{path}'"
    return LoadError(
        f"The weight {name} {where} holds NaN or infinite numbers, so nothing can be computed with it; download or "
        "save the model again, or take a checkpoint from before it broke.",
        path,
    )
