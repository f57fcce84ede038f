"""Pooled states, against those that transformers gives for each text alone."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_align.layout.branches import build_branches
from hf_align.models.states import StatesModel
from tests.tiny import tiny_model

DOCUMENTS = [([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9], [[10], [11, 12]])]


@pytest.mark.parametrize("adapter", [False, True], ids=["model", "adapter"])
@torch.no_grad()
def test_states_are_those_behind_the_layers_of_each_text_alone(adapter: bool) -> None:
    model = tiny_model(num_hidden_layers=6)
    if adapter:
        model = get_peft_model(model, LoraConfig(init_lora_weights=False)).eval()
    wrapped = StatesModel(model)
    assert wrapped.places == [(3, "mean"), (3, "last"), (4, "last"), (4, "mean")]  # .7 of 6 layers is the 4th, too
    found = wrapped(build_branches(DOCUMENTS, pad_token_id=0).as_separate())
    for row, (prompt, response) in zip(found, ((p, r) for p, rs in DOCUMENTS for r in rs), strict=True):
        hidden = model(torch.tensor([prompt + response]), output_hidden_states=True).hidden_states
        third, fourth = hidden[3][0], hidden[4][0]
        own = slice(len(prompt), None)
        expected = torch.cat([third[own].mean(0), third[-1], fourth[-1], fourth[own].mean(0)])
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)


def test_no_hook_stays_and_a_shallow_model_has_its_first_layer() -> None:
    model = tiny_model(num_hidden_layers=1)
    wrapped = StatesModel(model)
    assert wrapped.places == [(1, "mean"), (1, "last")]
    wrapped(build_branches(DOCUMENTS, pad_token_id=0).as_separate())
    assert not any(module._forward_hooks for module in model.modules())
