"""Hidden states of a frozen language model, pooled per text and layer, on which heads train in seconds.

Computed once from a cache of embeddings (`cache --layers 0`), a domain at a time, so the command resumes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.study.cache import BRANCHES, CachedTexts, documents, model_above
from hf_align.acceleration.registry import Setting, accelerated
from hf_align.data.embedded.ratings import DOMAINS, Domain
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.freezing import decoder_layers
from hf_align.models.pooling import pool

POOLINGS = ("last", "mean", "max")


@dataclass(frozen=True)
class Features:
    """Features of texts, in the cache's order.

    Attributes:
        pooled: `[N, d]` by pooling.
        tokens: `[M, d]` states of all response tokens; None if the layer has none.
        starts: `[N + 1]` first token of each text.
    """

    pooled: dict[str, Tensor]
    tokens: Tensor | None
    starts: Tensor

    @classmethod
    def load(cls, folder: Path, layer: int) -> Features:
        """Read a layer's features."""
        parts = [load_file(folder / f"{domain}-{layer}.safetensors") for domain in DOMAINS]
        counts = torch.cat([part["counts"] for part in parts])
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        pooled = {name: torch.cat([part[name] for part in parts]).float() for name in POOLINGS}
        tokens = torch.cat([part["tokens"] for part in parts]) if "tokens" in parts[0] else None
        return cls(pooled, tokens, starts)


@torch.no_grad()
def write_features(base: str, cache: CachedTexts, folder: Path, layers: list[int], token_layers: list[int]) -> None:
    """Compute and store what isn't in the folder yet.

    Args:
        base: Folder of the language model.
        cache: Of embeddings.
        folder: Where to write.
        layers: Numbers of layers behind which states are pooled; the last one's without the final norm.
        token_layers: Those among them whose states are also stored token by token, in 16 bits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = model_above(base, 0, cache.states)
    with accelerated(model, Setting.of(model, "score")):
        for domain in DOMAINS:
            if all((folder / f"{domain}-{layer}.safetensors").exists() for layer in layers):
                continue
            for layer, tensors in _domain(model, cache, domain, layers, token_layers).items():
                save_file(tensors, folder / f"{domain}-{layer}.safetensors")
            print(domain, flush=True)
    (folder / "features.json").write_text(json.dumps({"layers": layers, "token_layers": token_layers}))


def _domain(
    model: Any, cache: CachedTexts, domain: Domain, layers: list[int], token_layers: list[int]
) -> dict[int, dict[str, Tensor]]:
    rows = [row for row in cache.texts if row["domain"] == domain]
    found: dict[int, dict[str, list[Tensor]]] = {layer: {name: [] for name in POOLINGS} for layer in layers}
    for layer in token_layers:
        found[layer]["tokens"] = []
    current: list[Branches] = []

    def keep(layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            hidden, branches = output[0] if isinstance(output, tuple) else output, current[0]
            for name in POOLINGS:
                found[layer][name].append(pool(hidden, branches, name).half())
            if layer in token_layers:
                found[layer]["tokens"].append(hidden.flatten(0, 1)[branches.response_positions()].half())

        return hook

    modules = decoder_layers(model.model)
    hooks = [modules[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
    for document in documents(cache, rows, BRANCHES):
        current[:] = [build_branches([document], pad_token_id=0)]
        model(current[0])
    for hook in hooks:
        hook.remove()
    counts = torch.tensor([len(row["ids"]) for row in rows])
    return {
        layer: {**{name: torch.cat(parts) for name, parts in of_layer.items()}, "counts": counts}
        for layer, of_layer in found.items()
    }
