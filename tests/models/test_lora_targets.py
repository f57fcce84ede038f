"""An adapter on all linear layers leaves out those on which it would do nothing or fail; by name they are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType

from hf_align.errors import UserError
from hf_align.models.adapters import add_lora
from tests.families import FAMILIES

UNFIT = {"jamba": "dt_proj", "mamba": "dt_proj", "phimoe": "router", "llama4": "router"}


@pytest.mark.parametrize(("family", "name"), UNFIT.items())
def test_layers_that_a_model_does_not_call_as_layers_get_no_adapter(family: str, name: str):
    model: Any = FAMILIES[family].make()
    adapted: Any = add_lora(model, LoraConfig(r=2, target_modules="all-linear"), TaskType.CAUSAL_LM)
    layers = {layer.rpartition(".lora_A")[0] for layer, _ in adapted.named_parameters() if ".lora_A" in layer}
    assert layers and not [layer for layer in layers if layer.endswith(name)]
    for parameter in adapted.parameters():
        parameter.grad = None
    adapted(input_ids=torch.ones(1, 6, dtype=torch.long)).logits.sum().backward()
    of_b = [parameter.grad for layer, parameter in adapted.named_parameters() if ".lora_B" in layer]
    assert all(gradient is not None for gradient in of_b), "an adapter that does nothing"
    with pytest.raises(UserError, match=rf"an adapter on .*{name} would .* set exclude_modules=\['{name}'\]"):
        add_lora(FAMILIES[family].make(), LoraConfig(r=2, target_modules=[name]), TaskType.CAUSAL_LM)
