"""Hyper-parameters to begin with: those of the recipes, with batch, lengths and number of responses by the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hf_align.planning.selection.candidates import VARIANTS, Candidate
from hf_align.planning.selection.features import Features

LARGEST_BATCH = 32
STEPS = 50
"""Optimizer steps of a pass over the data that the batch is kept small for."""
COMMON: dict[str, Any] = {"lr_scheduler_type": "cosine", "warmup_steps": 0.05, "num_train_epochs": 1}
OF_WORK: dict[str, dict[str, Any]] = {  # recipes/*-24gb.yaml, for LoRA
    "demonstrations": {"learning_rate": 2e-4, **COMMON},
    "pairs": {"beta": 0.1, "learning_rate": 5e-5, **COMMON},
    "online-pairs": {"beta": 0.1, "learning_rate": 5e-5, "num_samples": 4, "num_mini_batches": 2},
    "policy-gradient": {
        "learning_rate": 5e-5,
        "num_samples": 4,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "kl_controller": "proportional",
        "target_kl": 8.0,
        "kl_horizon": 2000,
        "kl_coef": 0.05,
        "missing_eos_penalty": 1.0,
    },
    "sampling": {},
}


def hyperparameters(candidate: Candidate, features: Features, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options to begin with; keys of the algorithm's recipe (for best-of-n: n).

    Args:
        candidate: The algorithm.
        features: The case.
        options: The setting with which it fits.
    """
    if candidate not in VARIANTS:
        return dict(options or {})  # another package's, whose options aren't known here
    own = {**OF_WORK[candidate.work], **candidate.options}
    if candidate.work == "sampling":
        return own
    sampled = candidate.work in ("online-pairs", "policy-gradient")
    own |= {**(options or {}), "gradient_checkpointing": True}
    batch = _batch(features.rows)
    if sampled:
        own |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": max(1, batch // 4)}
        own["total_episodes"] = _whole(min(8192, 2 * features.pairs or 4 * features.rows), 2 * 4 * max(1, batch // 4))
        own["max_prompt_length"] = _rounded(features.longest_prompt)
        own["max_new_tokens"] = _rounded(features.longest_response)
    else:
        own |= {"per_device_train_batch_size": min(2, batch), "gradient_accumulation_steps": max(1, batch // 2)}
        own["max_length"] = _rounded(features.longest_prompt + features.longest_response)
    if "label_smoothing" in own and features.noise is not None:
        own["label_smoothing"] = round(min(0.4, max(0.05, features.noise)), 2)
    if candidate.name == "ppo":
        own["value_learning_rate"] = 5e-4
    return own


def _batch(rows: int) -> int:
    """A power of two up to `LARGEST_BATCH` that leaves `STEPS` steps a pass, if it can; at least 2."""
    return max(2, min(LARGEST_BATCH, 2 ** int(math.log2(max(1, rows // STEPS)))))


def _whole(count: int, unit: int) -> int:
    return max(1, count // unit) * unit


def _rounded(tokens: int) -> int:
    """Up to a multiple of 32."""
    return max(32, math.ceil(tokens / 32) * 32)
