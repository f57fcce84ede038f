"""Traced peaks against those of torch's allocator in the same passes on weights with data."""

from __future__ import annotations

import gc
from typing import Any, Literal

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from hf_align.acceleration.recompute import enable_selective_recompute
from hf_align.acceleration.registry import Setting, accelerated
from hf_align.experiments.run import LORA_DEFAULTS
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.adapters import float32_trainable
from hf_align.models.policy import PolicyModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.value import PolicyWithValueHead
from hf_align.planning.outline import outline
from hf_align.planning.phases import Setup, TracedReward, update

Task = Literal["reward", "dpo", "ppo"]
SHAPE = LlamaConfig(
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=512,
    pad_token_id=0,
    tie_word_embeddings=False,
    dtype=torch.bfloat16,
)
SHAPE.num_labels = 1


def wrap(task: Task, model: Any) -> Any:
    if task == "reward":
        return TracedReward(model, RewardModelConfig())
    if task == "dpo":
        return PolicyModel(model)
    return PolicyWithValueHead(model, value_model="shared", head="linear", detach_value_trunk=False)


def batch(task: Task) -> Branches:
    branches = build_branches([([1] * 40, [[1] * 40] * (1 if task == "ppo" else 2))] * 4, pad_token_id=0)
    return branches.as_separate() if task == "ppo" else branches


def allocated(wrapper: Any, task: Task, setup: Setup, accumulates: bool) -> float:
    """The allocator's maximum over what it held before an update, the second of two, and gradients held then."""
    if setup.recompute == "selective":
        enable_selective_recompute(wrapper)
    elif setup.recompute == "full":
        wrapper.activation_checkpointing_enable()
    options = {"return_entropy": True} if task == "ppo" else {}

    def work() -> None:
        with setup.autocast():
            output = wrapper(batch(task), **options)
        parts = output.values() if isinstance(output, dict) else [output]
        torch.stack([part.sum() for part in parts if part.requires_grad]).sum().backward()

    with accelerated(wrapper, Setting(("train",), "cpu", recomputes=setup.recompute != "none"), "auto"):
        work()
        if not accumulates:
            wrapper.zero_grad()
        gc.collect()  # garbage of earlier tests would be freed, and counted, while it works
        gradients = sum(weight.grad.nbytes for weight in wrapper.parameters() if weight.grad is not None)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            work()
    result: Any = profiler.profiler
    events = [event for event in result.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return gradients + peak


@pytest.mark.parametrize(
    ("task", "dtype", "recompute", "adapter"),
    [
        ("reward", torch.float32, "none", True),
        ("dpo", torch.bfloat16, "selective", True),
        ("ppo", torch.float32, "full", True),  # of base weights in bfloat16: a CPU converts where dtypes meet
        ("dpo", torch.float32, "none", False),  # on top of the gradients of an earlier micro-batch
    ],
)
def test_a_traced_update_takes_what_the_allocator_gives(
    task: Task, dtype: torch.dtype, recompute: Any, adapter: bool
) -> None:
    setup = Setup("cpu", dtype, "auto", recompute)
    lora = LoraConfig(**LORA_DEFAULTS) if adapter else None
    head = RewardModelConfig() if task == "reward" else False
    with torch.device("meta"):
        traced = wrap(task, outline(SHAPE, reward=head, lora=lora, dtype=dtype, fast=torch.bfloat16).model)
    planned = update(setup, traced, batch(task), accumulates=not adapter).peak
    kind = LlamaForSequenceClassification if task == "reward" else LlamaForCausalLM
    model: Any = kind(SHAPE)
    model = model.to(torch.bfloat16)
    model = model if lora is None else get_peft_model(model, lora, autocast_adapter_dtype=False)
    float32_trainable(model)
    taken = allocated(wrap(task, model).train(), task, setup, accumulates=not adapter)
    assert planned == pytest.approx(taken, rel=0.02)
