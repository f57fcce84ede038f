"""Trained RMS norms save only their input and give bitwise the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from hf_align.acceleration.norms import keep_less_of_norms
from hf_align.models.logits import logit_transform
from hf_align.models.policy import PolicyModel
from tests.acceleration.test_recompute import TINY, batch, bytes_kept, gradients

CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**TINY),
    "qwen3, norms of queries and keys": Qwen3Config(**TINY, head_dim=16),
    "gemma2, 1 + weight": Gemma2Config(**TINY, head_dim=16),
}


def built(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def norms(model: nn.Module) -> list[Any]:
    return [module for name, module in model.named_modules() if "norm" in name and "layers." in name]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_full_fine_tuning_gets_the_same_gradients(name: str, bf16: bool):
    model = PolicyModel(built(CONFIGS[name]))
    plain = gradients(model, bf16)
    keep_less_of_norms(model)
    assert norms(model) and all("forward" in vars(norm) for norm in norms(model))
    actual = gradients(model, bf16)
    assert actual.keys() == plain.keys()
    for name, gradient in actual.items():
        assert torch.equal(gradient, plain[name]), name


def test_the_normalised_states_are_not_kept():
    model = built(LlamaConfig(**TINY))
    norm, x = norms(model)[0], torch.randn(500, TINY["hidden_size"], requires_grad=True)
    before = bytes_kept(lambda: norm(x))
    keep_less_of_norms(model)
    assert before - bytes_kept(lambda: norm(x)) >= x.nbytes
    norm.weight.requires_grad_(False)
    frozen = bytes_kept(lambda: norm(x))
    del norm.forward
    assert bytes_kept(lambda: norm(x)) == frozen, "a frozen norm goes its own way"


def test_a_layer_that_is_checkpointed_or_has_no_gradients_goes_its_own_way(monkeypatch: pytest.MonkeyPatch):
    model = built(LlamaConfig(**TINY)).train()
    keep_less_of_norms(model)
    calls: list[Any] = []
    own = LlamaRMSNorm.forward
    monkeypatch.setattr(LlamaRMSNorm, "forward", lambda self, x: calls.append(self) or own(self, x))
    wrapper, layers, last = PolicyModel(model), len(norms(model)), 1  # the last one follows the layers
    logit_transform(wrapper)  # measured in a pass of its own, once

    def runs(*, backward: bool = True) -> int:
        calls.clear()
        with torch.set_grad_enabled(backward):
            logps = wrapper(batch())
        if backward:
            logps.sum().backward()
        return len(calls)

    assert runs() == 2 * layers + last
    assert runs(backward=False) == layers + last
    model.gradient_checkpointing_enable()
    assert runs() == 2 * layers + last, "run again with their layer, and not once more by themselves"
