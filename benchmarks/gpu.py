"""`python -m benchmarks gpu`: models too large for a CPU, with random weights, to measure time and memory."""

from __future__ import annotations

import argparse
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from benchmarks.commands import benchmark, embedded_model, prepare_ppo, say, write_rows
from benchmarks.session import EXIT_OK
from benchmarks.spec import Spec
from benchmarks.workloads import WORKLOADS, long_prompt_rows, preference_rows
from hf_align.errors import UserError
from hf_align.files import whole_folder
from hf_align.models.reward import load_reward_model

SIZES: dict[str, dict[str, Any]] = {
    "toy": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 49152},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 128256},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256},
}
HEADS = {"toy": 4, "1b": 32, "8b": 32}
KV_HEADS = {"toy": 2, "1b": 8, "8b": 8}
GIB = 2**30
CAPS = {("8b", "8bit"): 24 * GIB, ("8b", "4bit"): 15 * GIB}
"""Limit of GPU memory for the process of a PPO run."""
PROMPT_WORDS, NEW_TOKENS = {"toy": 20, "1b": 620, "8b": 620}, {"toy": 8, "1b": 192, "8b": 192}
"""Words of quantised PPO's prompts and tokens of responses: about 1,024 tokens together, 36 at toy size."""
CHAT_TOKENS = {"toy": 8, "1b": 128, "8b": 128}
"""Tokens of a response in PPO against the peer, with the short chat prompts of the `ppo` command."""


def run(options: argparse.Namespace) -> int:
    """Run DPO, reward model and PPO against the peer in `--dtype`, and PPO with all roles on 8-bit and 4-bit bases."""
    if not torch.cuda.is_available() and options.sizes != ["toy"]:
        raise UserError("--sizes: without a CUDA GPU only toy can be run")
    work, status = Path(options.work).resolve(), EXIT_OK
    for size in options.sizes:
        model = _model(size, options, work)
        for task in options.tasks:
            if task == "quantized":
                reward = _reward(model, work / f"{size}-reward", options.seed)
                for quantization in ("8bit", "4bit"):
                    status = max(status, _quantized_ppo(size, quantization, model, reward, options, work))
            else:
                status = max(status, (_ppo if task == "ppo" else _preference)(task, size, model, options, work))
    return status


def _preference(task: str, size: str, model: Path, options: argparse.Namespace, work: Path) -> int:
    spec = replace(_spec(task, size, model, options, work), batch=options.batch)
    write_rows(spec, preference_rows(WORKLOADS[options.workload], spec.batch * spec.total_steps, spec.seed))
    return benchmark(spec, options, f"gpu-{size}-{task}-{options.workload}-{options.dtype}")


def _ppo(task: str, size: str, model: Path, options: argparse.Namespace, work: Path) -> int:
    spec = replace(_spec(task, size, model, options, work), batch=options.batch, max_new_tokens=CHAT_TOKENS[size])
    return benchmark(prepare_ppo(spec, work), options, f"gpu-{size}-ppo-{options.dtype}")


def _quantized_ppo(
    size: str, quantization: str, model: Path, reward: Path, options: argparse.Namespace, work: Path
) -> int:
    spec = replace(
        _spec("ppo", size, model, options, work),
        quantization=quantization,
        memory_cap=CAPS.get((size, quantization)),
        checkpointing=True,
        accumulation=2,
        reward=str(reward),
        max_new_tokens=NEW_TOKENS[size],
    )
    write_rows(spec, long_prompt_rows(PROMPT_WORDS[size], spec.batch, spec.seed))
    alone = argparse.Namespace(**vars(options) | {"peer": None})
    return benchmark(spec, alone, f"gpu-{size}-ppo-{quantization}")


def _spec(task: str, size: str, model: Path, options: argparse.Namespace, work: Path) -> Spec:
    return Spec(
        task=task,  # type: ignore[arg-type]
        side="ours",
        model=str(model),
        rows=str(work / f"gpu-{size}-{task}-rows.json"),
        out=str(work / "runs" / f"gpu-{size}-{task}"),
        dtype=options.dtype,
        steps=options.steps,
        warmup=options.warmup,
        seed=options.seed,
    )


def _model(size: str, options: argparse.Namespace, work: Path) -> Path:
    """A folder with a random Llama of this size in bfloat16 and a real tokenizer."""
    folder = work / f"llama-{size}"
    if folder.exists():
        return folder
    say(f"Making a random Llama of size {size}.")
    tokenizer = AutoTokenizer.from_pretrained(options.model or str(embedded_model(work)))
    torch.manual_seed(options.seed)
    config = LlamaConfig(
        **SIZES[size],
        num_attention_heads=HEADS[size],
        num_key_value_heads=KV_HEADS[size],
        max_position_embeddings=8192,
        tie_word_embeddings=size != "8b",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # never fully in float32
    with whole_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    del model
    _release()
    return folder


def _reward(model: Path, folder: Path, seed: int) -> Path:
    """A reward model's adapter on that base, which PPO adds beside the policy's."""
    if not folder.exists():
        torch.manual_seed(seed)
        reward = load_reward_model(model, lora=True, dtype=torch.bfloat16)
        reward.save_pretrained(folder)
        reward.tokenizer.save_pretrained(folder)
        del reward
        _release()
    return folder


def _release() -> None:
    """Free the GPU for the measured processes."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
