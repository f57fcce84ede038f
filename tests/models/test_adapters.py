"""Adapter switches change only the computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model

from hf_align.errors import UserError
from hf_align.models.adapters import (
    REFERENCE_ADAPTER,
    active_adapter,
    add_frozen_copy,
    float32_trainable,
)
from hf_align.models.loading import load_policy
from hf_align.models.reward import load_reward_model
from hf_align.models.trainable import with_adapter
from tests.tiny import tiny_model

IDS = torch.tensor([[5, 6, 7, 8]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def adapted(tiny_model_dir: str) -> PeftModel:
    model = load_policy(tiny_model_dir, lora=True)
    assert isinstance(model, PeftModel)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_none_is_the_base_model(adapted: PeftModel, tiny_model_dir: str):
    base, before, names = logits(load_policy(tiny_model_dir)), logits(adapted), trainable(adapted)
    with active_adapter(adapted, None):
        torch.testing.assert_close(logits(adapted), base, atol=0, rtol=0)
        assert trainable(adapted) == names
    torch.testing.assert_close(logits(adapted), before, atol=0, rtol=0)
    assert not torch.allclose(before, base)
    assert trainable(adapted) == names


def test_a_switch_is_undone_after_an_error(adapted: PeftModel):
    before = logits(adapted)
    with pytest.raises(RuntimeError), active_adapter(adapted, None):
        raise RuntimeError
    torch.testing.assert_close(logits(adapted), before, atol=0, rtol=0)


def test_a_frozen_copy_stays_what_it_was(adapted: PeftModel):
    before, names = logits(adapted), trainable(adapted)
    add_frozen_copy(adapted, "default")
    assert trainable(adapted) == names, "the copy is frozen and the original isn't"
    torch.testing.assert_close(logits(adapted), before, atol=0, rtol=0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name in names:
                parameter.add_(0.1)
    assert not torch.allclose(logits(adapted), before)
    with active_adapter(adapted, REFERENCE_ADAPTER):
        torch.testing.assert_close(logits(adapted), before, atol=0, rtol=0)


def test_a_copy_of_an_earlier_training_is_replaced(adapted: PeftModel):
    add_frozen_copy(adapted, "default")
    names = trainable(adapted)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name in names:
                parameter.add_(0.1)
    twins = add_frozen_copy(adapted, "default")
    assert trainable(adapted) == names and set(twins.values()) == names
    with active_adapter(adapted, REFERENCE_ADAPTER):
        copied = logits(adapted)
    torch.testing.assert_close(copied, logits(adapted), atol=0, rtol=0)
    assert adapted.active_adapters == ["default"]


def test_what_is_trained_is_float32(tiny_model_dir: str):
    model = load_policy(tiny_model_dir, dtype=torch.bfloat16)
    model.model.embed_tokens.requires_grad_(False)
    float32_trainable(model)
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.float32


def test_one_lora_config_serves_a_reward_model_and_a_policy(tiny_model_dir: str):
    config = LoraConfig(r=2, target_modules="all-linear")
    load_reward_model(tiny_model_dir, lora=config)
    load_policy(tiny_model_dir, lora=config)
    assert config.task_type is None
    assert config.target_modules == "all-linear"


@pytest.mark.parametrize("task", [TaskType.CAUSAL_LM, TaskType.SEQ_CLS])
@pytest.mark.parametrize("kind", [PrefixTuningConfig, PromptTuningConfig])
def test_virtual_tokens_are_refused(kind: Any, task: TaskType):
    config = kind(num_virtual_tokens=2, task_type="CAUSAL_LM")
    with pytest.raises(UserError, match=f"peft_config is a {kind.__name__}, which puts virtual tokens before each row"):
        with_adapter(tiny_model(), config, task)
    with pytest.raises(UserError, match=f"model's adapter is a {kind.__name__}, which puts virtual tokens"):
        with_adapter(get_peft_model(tiny_model(), config), None, task)
