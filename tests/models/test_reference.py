"""A reference computes as the policy did, by a module of its own or by the policy's under another adapter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.policy import PolicyModel
from hf_align.models.reference import Reference
from tests.tiny import tiny_model

BATCH = build_branches([([1, 2, 3], [[4, 5], [6]])], pad_token_id=0)


def logps(model: Any) -> Tensor:
    with torch.no_grad():
        return model(BATCH)


@pytest.mark.parametrize("how", ["snapshot", "new adapter", "adapter that came with the model"])
def test_training_leaves_it_alone(how: str):
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=how == "new adapter")
    policy = PolicyModel(tiny_model() if how == "snapshot" else get_peft_model(tiny_model(), lora))
    before = logps(policy)
    reference = Reference(
        policy, None, new_adapter=how == "new adapter", snapshot=True, place=lambda frozen: frozen.eval()
    )
    key = reference.weights_key()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1 if weight.requires_grad else 0)
    assert (logps(policy) - before).abs().max() > 0.01
    with reference.scored_as(policy) as scorer:
        assert torch.equal(logps(scorer), before)
        assert (scorer is policy) == reference.by_adapter == (how != "snapshot")
    assert reference.is_kept
    assert reference.weights_key() == key


def test_without_a_snapshot_it_is_gone_once_the_policy_is_trained():
    policy = PolicyModel(tiny_model())
    reference = Reference(policy, None, new_adapter=False, snapshot=False, place=lambda frozen: frozen)
    assert not reference.is_kept
    with reference.scored_as(policy) as scorer:
        assert scorer is policy


def test_what_is_no_model_is_refused():
    with pytest.raises(UserError, match="ref_model is a dict; give a Hub id, a folder or a model"):
        Reference(PolicyModel(tiny_model()), {}, new_adapter=False, snapshot=True, place=lambda frozen: frozen)


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("new_adapter", [True, False])
def test_a_weight_trained_outside_adapters_would_change_it(bias: Any, new_adapter: bool):
    def build(model: Any) -> Reference:
        return Reference(policy, model, new_adapter=new_adapter, snapshot=True, place=lambda frozen: frozen)

    lora = LoraConfig(r=4, target_modules=["q_proj"], bias=bias)
    policy = PolicyModel(get_peft_model(tiny_model(attention_bias=True), lora))
    assert not build(tiny_model(attention_bias=True)).is_as_given, "one of its own stays as it is"
    if bias == "none":
        assert build(None).by_adapter
        return
    with pytest.raises(UserError, match=r"q_proj.base_layer.bias is trained .*; give ref_model"):
        build(None)
