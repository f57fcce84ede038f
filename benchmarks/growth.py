"""One point of a growth curve, in a separate process: `python -m benchmarks.growth POINT.json RESULT.json`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.floor import layout_of
from benchmarks.flops import Shape, backward_gemms, forward_gemms
from benchmarks.measure import memory
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.adapters import add_lora
from hf_align.models.policy import PolicyModel

REPEATS, RANK = 5, 16


@dataclass(frozen=True)
class Point:
    """A policy's forward and backward pass over `documents` prompts with `branches` responses each.

    The model is a random Llama with LoRA r=16 on all linear layers.
    """

    prompt: int = 128
    response: int = 64
    branches: int = 2
    documents: int = 4
    vocabulary: int = 16384
    hidden: int = 256
    layers: int = 4


def measure(point: Point) -> dict[str, Any]:
    """Measure a pass: minimum seconds (disturbances only add), bytes added to the peak, and operations."""
    torch.manual_seed(0)
    model, batch = _model(point), _batch(point)
    shape, layout = Shape.of(model.config, RANK), layout_of(batch)
    gemms = forward_gemms(shape, layout, lora=True, head=True) + backward_gemms(shape, layout, head=True)
    before = _reset_peak()
    seconds = [_seconds(model, batch) for _ in range(REPEATS + 1)][1:]
    used = memory()["peak"] - before
    operations = sum(gemm.flops for gemm in gemms)
    measured = {"seconds": min(seconds), "bytes": used, "operations": operations}
    return {**measured, "tokens": batch.input_ids.numel(), **asdict(point)}


def _model(point: Point) -> PolicyModel:
    config = LlamaConfig(
        vocab_size=point.vocabulary,
        hidden_size=point.hidden,
        intermediate_size=4 * point.hidden,
        num_hidden_layers=point.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16384,
        tie_word_embeddings=True,
    )
    lora = LoraConfig(r=RANK, target_modules="all-linear")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return PolicyModel(add_lora(LlamaForCausalLM(config), lora, "CAUSAL_LM")).to(device).train()  # type: ignore[arg-type]


def _batch(point: Point) -> Branches:
    ids = torch.randint(point.vocabulary, (point.documents, point.prompt + point.branches * point.response))
    parts = [point.prompt, *[point.response] * point.branches]
    documents = [(row[0], row[1:]) for row in ([part.tolist() for part in line.split(parts)] for line in ids)]
    return build_branches(documents, pad_token_id=0).to("cuda" if torch.cuda.is_available() else "cpu")


def _seconds(model: PolicyModel, batch: Branches) -> float:
    start = time.perf_counter()
    model(batch).sum().backward()
    model.zero_grad()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _reset_peak() -> int:
    """Reset the peak; return the bytes held now."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5): resets VmHWM
    return memory()["now"]


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(measure(Point(**given))) + "\n", encoding="utf-8")
