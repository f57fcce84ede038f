"""The floor of our step time: its matrix products, at this machine's rate for exactly these shapes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoConfig, PreTrainedTokenizerBase

from benchmarks.flops import Gemm, Layout, Shape, ppo_gemms, preference_gemms
from benchmarks.machine import GemmClock
from benchmarks.spec import Spec
from benchmarks.training import lora, read_rows
from hf_align.collators import (
    PreferenceCollator,
    check_preferences,
    find_pad_token_id,
    tokenize_preferences,
    tokenize_prompts,
)
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.sources import load_tokenizer


def layout_of(branches: Branches) -> Layout:
    """The sizes of a batch."""
    rows, width = branches.input_ids.shape
    real = branches.doc_ids >= 0
    pairs = branches.attention_mask()[:, 0] & real[:, :, None]
    return Layout(rows, width, int(real.sum()), int(pairs.sum()), len(branches.targets))


def step_gemms(spec: Spec) -> tuple[list[Gemm], float]:
    """The products of a timed step, and its tokens (each prompt counted once)."""
    tokenizer, adapter = load_tokenizer(spec.model), lora(spec, "CAUSAL_LM")
    shape = Shape.of(AutoConfig.from_pretrained(spec.model), rank=adapter.r if adapter else 0)
    if spec.task == "ppo":
        prompts, layout = ppo_layouts(spec, tokenizer)
        gemms = ppo_gemms(shape, prompts, layout, spec.max_new_tokens, spec.ppo_epochs, spec.num_samples)
        return gemms, float(layout.tokens)
    layout = _mean(preference_layouts(spec, tokenizer)[spec.warmup : spec.total_steps])
    return preference_gemms(shape, layout, task=spec.task), float(layout.tokens)


def preference_layouts(spec: Spec, tokenizer: PreTrainedTokenizerBase) -> list[Layout]:
    """Layout of each step's batch, in the order of the rows."""
    rows = check_preferences(Dataset.from_list(read_rows(spec)), name="rows")
    tokenized = tokenize_preferences(rows, tokenizer, max_length=None)
    collate = PreferenceCollator(pad_token_id=find_pad_token_id(tokenizer))
    starts = range(0, len(tokenized), spec.batch)
    batches = [collate([tokenized[n] for n in range(start, start + spec.batch)]) for start in starts]
    return [layout_of(batch["branches"]) for batch in batches]


def ppo_layouts(spec: Spec, tokenizer: PreTrainedTokenizerBase) -> tuple[Layout, Layout]:
    """Layouts of a rollout's prompts, and of the prompts with their responses."""
    rows = tokenize_prompts(Dataset.from_list(read_rows(spec)), tokenizer)
    ids = [list(prompt) for prompt in rows["prompt_ids"][:]]
    response = [0] * spec.max_new_tokens
    together = build_branches([(prompt, [response] * spec.num_samples) for prompt in ids], pad_token_id=0)
    lengths = [len(prompt) for prompt in ids]
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    prompts = Layout(len(ids), max(lengths), sum(lengths), pairs, len(ids))
    return prompts, layout_of(together)


def floor_of(gemms: Sequence[Gemm], dtype: str) -> dict[str, Any]:
    """Operations and minimum seconds of the products, in total and by part; measures the machine's rate now.

    Args:
        gemms: Products of a step.
        dtype: "fp32" or "bf16".
    """
    clock = GemmClock(torch.bfloat16 if dtype == "bf16" else torch.float32)
    parts: dict[str, dict[str, float]] = {}
    for gemm in gemms:
        part = parts.setdefault(gemm.part, {"flops": 0.0, "seconds": 0.0})
        part["flops"] += gemm.flops
        part["seconds"] += clock.seconds(gemm) * gemm.count * gemm.share
    flops, seconds = (sum(part[name] for part in parts.values()) for name in ("flops", "seconds"))
    return {"flops": flops, "seconds": seconds, "flops_per_second": flops / seconds, "parts": parts}


def _mean(layouts: Sequence[Layout]) -> Layout:
    columns = ("rows", "width", "tokens", "pairs", "responses")
    return Layout(**{name: round(statistics.fmean(getattr(each, name) for each in layouts)) for name in columns})
