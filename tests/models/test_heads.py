"""Heads of reward and value models: their definitions and how they start."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hf_align.models.heads import linear_layers, new_reward_head, new_value_head
from hf_align.models.randomness import disable_dropout
from hf_align.models.reward_config import RewardModelConfig

CPU = torch.device("cpu")


def sizes(head: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in linear_layers(head)]


def test_heads_have_the_layers_they_are_documented_to_have():
    config = RewardModelConfig(head="mlp", tasks={"tone": 3, "safe": "binary"}, projection=True)
    assert sizes(new_reward_head(RewardModelConfig(), 64, CPU)) == [(64, 1)]
    assert sizes(new_reward_head(config, 64, CPU)) == [(64, 32), (32, 1), (64, 4), (64, 256), (256, 128)]
    assert sizes(new_reward_head(RewardModelConfig(head="attention"), 64, CPU)) == [(64, 16), (16, 1), (64, 1)]
    reward = new_reward_head(RewardModelConfig(head="mlp"), 64, CPU).reward
    kinds = [type(layer) for layer in reward]  # type: ignore[union-attr, arg-type]
    value = new_value_head("mlp", 64, CPU)
    assert kinds == [type(layer) for layer in value] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]  # type: ignore[arg-type]
    assert sizes(value) == [(64, 32), (32, 1)]


def test_weights_start_at_the_documented_scale_and_values_at_zero():
    torch.manual_seed(0)
    config = RewardModelConfig(head="mlp", tasks={"tone": 30}, projection=True)
    for layer in linear_layers(new_reward_head(config, 512, CPU)):
        assert layer.weight.std().item() * (layer.in_features + 1) ** 0.5 == pytest.approx(1, abs=0.15)
        assert layer.bias is None or not layer.bias.any()
    for kind in ("linear", "mlp"):
        assert not new_value_head(kind, 64, CPU)(torch.randn(3, 64)).any()


def test_dropout_of_a_head_is_a_tenth_in_training_unless_switched_off():
    head = new_reward_head(RewardModelConfig(head="mlp"), 512, CPU).train()
    states = torch.ones(1, 512)
    hidden: list[torch.Tensor] = []
    head.reward[2].register_forward_hook(lambda module, args, output: hidden.append((output == 0) & (args[0] != 0)))  # type: ignore[index, union-attr]
    for _ in range(20):
        head(states)
    assert torch.cat(hidden).float().mean().item() == pytest.approx(0.05, abs=0.02), "half of them are 0 by ReLU"
    disable_dropout(head)
    assert torch.equal(head(states), head(states))
