"""Gated MLPs save less and give bitwise the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config

from hf_align.acceleration.lora import fuse_lora
from hf_align.acceleration.mlp import keep_less_of_mlps
from hf_align.models.loading import load_policy
from hf_align.models.logits import logit_transform
from hf_align.models.policy import PolicyModel
from tests.acceleration.test_recompute import TINY, batch, bytes_kept, gradients, random_lora
from tests.tiny import save_tiny

CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**TINY),
    "llama with biases": lambda: LlamaConfig(**TINY, mlp_bias=True),
    "qwen2": lambda: Qwen2Config(**TINY),
    "gemma2, gelu": lambda: Gemma2Config(**TINY, head_dim=16),
}


def built(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def mlps(model: nn.Module) -> list[Any]:
    return [module for name, module in model.named_modules() if name.endswith(".mlp")]


def same_gradients(model: nn.Module, bf16: bool = False) -> None:
    plain = gradients(model, bf16)
    keep_less_of_mlps(model)
    assert all("forward" in vars(mlp) for mlp in mlps(model))
    for name, gradient in gradients(model, bf16).items():
        assert torch.equal(gradient, plain.pop(name)), name
    assert not plain


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_full_fine_tuning_gets_the_same_gradients(name: str, bf16: bool):
    same_gradients(PolicyModel(built(CONFIGS[name]())), bf16)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("quantization", [None, "8bit", "4bit"])
def test_adapters_get_the_same_gradients(quantization: Any, bf16: bool, tmp_path: Any):
    folder = save_tiny(tmp_path, hidden_size=64, intermediate_size=128)
    model = load_policy(folder, quantization=quantization, lora=random_lora())
    fuse_lora(model)
    same_gradients(PolicyModel(model), bf16)


def test_two_of_four_wide_results_are_kept():
    model: Any = built(LlamaConfig(**TINY))
    mlp: Any = mlps(model)[0]
    x = torch.randn(500, TINY["hidden_size"], requires_grad=True)
    wide = 500 * TINY["intermediate_size"] * 4
    before = bytes_kept(lambda: mlp(x))
    keep_less_of_mlps(model)
    # The projections' own memory is the output's; the other saved tensors are the wide results.
    assert before - bytes_kept(lambda: mlp(x)) == 2 * wide


def test_a_layer_that_is_checkpointed_or_has_no_gradients_goes_its_own_way(monkeypatch: pytest.MonkeyPatch):
    model: Any = built(LlamaConfig(**TINY))
    keep_less_of_mlps(model)
    wrapper = PolicyModel(model.train())
    logit_transform(wrapper)  # measured in a pass of its own, once
    calls: list[Tensor] = []
    original = type(mlps(model)[0]).forward
    monkeypatch.setattr(type(mlps(model)[0]), "forward", lambda self, x: calls.append(x) or original(self, x))
    wrapper(batch())
    assert not calls
    with torch.no_grad():
        wrapper(batch())
    assert len(calls) == 2
    model.gradient_checkpointing_enable()
    same = gradients(wrapper)
    assert len(calls) == 2 + 4  # each layer twice
    model.gradient_checkpointing_disable()
    for name, gradient in gradients(wrapper).items():
        assert torch.equal(gradient, same[name])


def test_other_mlps_and_wrapped_ones_stay():
    other = built(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=2))
    keep_less_of_mlps(other)
    assert not any("forward" in vars(module) for module in other.modules())
    model: Any = built(LlamaConfig(**TINY))
    hook = mlps(model)[0].forward = lambda x: x  # such as an offloading library's
    keep_less_of_mlps(model)
    assert mlps(model)[0].forward is hook


def test_lora_of_peft_itself_gets_the_same_gradients(tmp_path: Any):
    """Without `fuse_lora` three operations save the down projection's input; one recipe serves all."""
    config = LoraConfig(r=8, target_modules=["down_proj"], init_lora_weights=False)
    same_gradients(PolicyModel(load_policy(save_tiny(tmp_path), lora=config)))
