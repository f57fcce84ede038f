"""Memory and operations of each kind of work, from the model's config and the data's lengths.

The planner is called here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig

from hf_align.algorithms import ALGORITHMS
from hf_align.experiments.run import LORA_DEFAULTS
from hf_align.layout.branches import Document
from hf_align.planning.device import Device
from hf_align.planning.outline import Outline, outline
from hf_align.planning.planner import Settings, plan_settings
from hf_align.planning.selection.candidates import Candidate, Work
from hf_align.planning.selection.features import Features
from hf_align.progress import Progress, Silent

SETTINGS: tuple[dict[str, Any], ...] = (
    {"lora": True},
    {"lora": True, "quantization": "8bit"},
    {"lora": True, "quantization": "4bit"},
)
"""Ways to train, from the one with the most memory to the one with the least; each recomputes activations."""
PLANNED: Mapping[Work, str] = {
    "demonstrations": "sft",
    "pairs": "dpo",
    "online-pairs": "online-dpo",
    "policy-gradient": "ppo",
}
"""The algorithm that is planned for each kind of work."""
SAMPLES = 4
"""Responses to each prompt where they are sampled."""
OPERATIONS: Mapping[Work, float] = {
    "demonstrations": 6.0,
    "pairs": 8.0,
    "online-pairs": 12.0,
    "policy-gradient": 20.0,
    "sampling": 4.0,
}
"""Operations by weight and token: 2 a forward pass, 4 a backward pass. Pairs: policy and reference. Online pairs:
sampling and reward besides. Policy gradient: sampling, reward, reference, the old policy, and two passes over a
rollout. Sampling: a response and its score. In the quickstart a response took 2.5 times as long with PPO as with DPO,
which is 20 / 8."""


@dataclass(frozen=True)
class Estimate:
    """What an algorithm takes.

    Attributes:
        memory: Bytes with the least setting and a micro-batch of one row.
        operations: Floating-point operations of one pass over the data, with its reward model's training.
        options: The first of `SETTINGS` that fits; None if none does.
    """

    memory: float
    operations: float
    options: Mapping[str, Any] | None = field(default_factory=dict)


Estimator = Callable[[Candidate, Features], Estimate]


def estimator(model: str, device: Device, progress: Progress | None = None) -> Estimator:
    """The estimator of a model: each kind of work is planned once for all candidates.

    Args:
        model: Hub id, folder or adapter.
        device: The device planned for.
        progress: Receiver of progress.
    """
    planned: dict[Work, tuple[float, Mapping[str, Any] | None]] = {}

    def plan_work(work: Work, features: Features) -> tuple[float, Mapping[str, Any] | None]:
        def size(setting: Mapping[str, Any]) -> float:
            return planned_bytes(work, setting, model, device, features)

        first, last = size(SETTINGS[0]), size(SETTINGS[-1])
        if first <= features.memory:
            return min(first, last), SETTINGS[0]
        fitting = (setting for setting in SETTINGS[1:-1] if size(setting) <= features.memory)
        return min(first, last), next(fitting, SETTINGS[-1] if last <= features.memory else None)

    def estimate(candidate: Candidate, features: Features) -> Estimate:
        if candidate.work not in planned:
            with (progress or Silent()).task(f"memory of {candidate.name}", 1):
                planned[candidate.work] = plan_work(candidate.work, features)
        least, options = planned[candidate.work]
        return Estimate(least, operations(candidate, features), options)

    return estimate


def planned_bytes(work: Work, setting: Mapping[str, Any], model: str, device: Device, features: Features) -> float:
    """Bytes of the device with the least micro-batch of the longest rows, margin included.

    Args:
        work: Kind of work.
        setting: One of `SETTINGS`.
        model: Hub id, folder or adapter.
        device: The device planned for.
        features: Give the lengths.
    """
    prompt, response = max(1, features.longest_prompt), max(1, features.longest_response)
    if work == "sampling":
        made = outline_of(model, device, setting.get("quantization"))
        return device.needed(made.base_bytes + cache_bytes(made, SAMPLES, prompt + response), made.base_bytes)
    values: dict[str, Any] = {**setting, "gradient_checkpointing": True, "per_device_train_batch_size": 1}
    if work in ("online-pairs", "policy-gradient"):
        values |= {"num_samples": SAMPLES, "per_device_train_batch_size": SAMPLES, "num_mini_batches": 1}
        values |= {"max_prompt_length": prompt, "max_new_tokens": response}
    else:
        values["max_length"] = prompt + response
    rows = [longest_row(work, features)]
    return plan_settings(Settings(model, ALGORITHMS[PLANNED[work]], values, device, rows)).device_bytes


def longest_row(work: Work, features: Features) -> Document:
    """A row of the longest prompt and responses, as many as this kind of work has."""
    responses = {"demonstrations": 1, "pairs": 2}.get(work, SAMPLES)
    return [1] * max(1, features.longest_prompt), [[1] * max(1, features.longest_response)] * responses


def cache_bytes(made: Outline, sequences: int, tokens: int) -> float:
    """Bytes of keys and values of `sequences` of so many tokens in the compute dtype."""
    config = made.text_config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2.0 * config.num_hidden_layers * heads * size * sequences * tokens * made.dtype.itemsize


def operations(candidate: Candidate, features: Features) -> float:
    """Operations of one pass over the data, with the training of a reward model where none is given."""
    pairs, prompt, response = features.pairs, features.prompt_tokens, features.response_tokens
    responses = 2 * pairs or SAMPLES * features.rows
    tokens = {
        "demonstrations": features.rows * (prompt + response),
        "pairs": pairs * (prompt + 2 * response),
        "sampling": 0.0,  # nothing is trained
    }.get(candidate.work, responses * (prompt + response))
    own = OPERATIONS[candidate.work] * tokens
    if candidate.needs_reward and features.reward == "none":
        own += 6.0 * pairs * (prompt + 2 * response)
    return own * features.parameters


def outline_of(model: str, device: Device, quantization: str | None = None) -> Outline:
    """The model with the adapter that would be trained, as the device would have it."""
    lora = LoraConfig(**LORA_DEFAULTS)
    return outline(model, quantization=quantization, lora=lora, dtype=device.dtype, fast=device.dtype)
