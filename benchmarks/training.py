"""Settings shared by both sides: training arguments, LoRA, weights and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from benchmarks.spec import Spec

RESERVED_END = -1
"""Index of the special token that ends PPO responses: the last one; text has none, so all get full length."""


def common_arguments(spec: Spec) -> dict[str, Any]:
    """Trainer arguments of both sides."""
    return {
        "output_dir": str(Path(spec.out) / "run"),
        "per_device_train_batch_size": spec.batch // spec.accumulation,
        "gradient_accumulation_steps": spec.accumulation,
        "learning_rate": 1e-5 if spec.full else 1e-4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0 if spec.task == "ppo" else 1.0,  # TRL's PPO has no clipping
        "bf16": spec.dtype == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": spec.checkpointing,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": spec.seed,
        "remove_unused_columns": False,
    }


def preference_arguments(spec: Spec) -> dict[str, Any]:
    """Arguments of DPO and reward models: rows in the order of the file, none cut."""
    return {
        **common_arguments(spec),
        "max_steps": spec.total_steps,
        "train_sampling_strategy": "sequential",
        "max_length": None,
    }


def lora(spec: Spec, task_type: str) -> LoraConfig | None:
    """Rank 16 on all linear layers, or None for full fine-tuning."""
    if spec.full:
        return None
    modules_to_save = ["score"] if task_type == "SEQ_CLS" else None
    return LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type=task_type, modules_to_save=modules_to_save
    )


def weights_dtype(spec: Spec) -> torch.dtype:
    """Dtype of loaded weights: frozen ones in the compute dtype, trained ones in float32."""
    return torch.bfloat16 if spec.dtype == "bf16" and not spec.full else torch.float32


def load(auto_class: Any, path: str, dtype: torch.dtype, **kwargs: Any) -> Any:
    """Load a model onto the training device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return auto_class.from_pretrained(path, dtype=dtype, **kwargs).to(device)


def read_rows(spec: Spec) -> list[dict[str, Any]]:
    """The data."""
    return json.loads(Path(spec.rows).read_text(encoding="utf-8"))


def reserved_end(tokenizer: Any) -> int:
    """A special token that doesn't occur in text, as the end of PPO responses; never the pad token."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    candidates = sorted(special - {tokenizer.pad_token_id, tokenizer.eos_token_id})
    return candidates[RESERVED_END]
