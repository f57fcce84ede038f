from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import (
    Gemm,
    Layout,
    Shape,
    backward_gemms,
    forward_gemms,
    generation_gemms,
    ppo_gemms,
    preference_gemms,
)
from tests.tiny import tiny_model

SHAPE = Shape(hidden=8, layers=2, heads=2, kv_heads=1, head_dim=4, inner=16, vocabulary=10, rank=2)
LAYOUT = Layout(rows=1, width=6, tokens=5, pairs=12, responses=3)


def parts(gemms: list[Gemm]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for gemm in gemms:
        sums[gemm.part] = sums.get(gemm.part, 0) + gemm.flops
    return sums


def test_a_forward_pass_by_hand():
    # Weights of a layer: q 8x8, k and v 8x4, o 8x8, gate, up and down 8x16: 576; inputs plus outputs: 128.
    expected = {
        "linear": 2 * 5 * 576 * 2,  # 2 operations, 5 tokens, 2 layers
        "lora": 2 * 5 * 2 * 128 * 2,  # rank 2
        "attention": 2 * 2 * 12 * 4 * 2 * 2,  # scores and values; 12 pairs, head size 4, 2 heads, 2 layers
        "head": 2 * 3 * 8 * 10,
    }
    assert parts(forward_gemms(SHAPE, LAYOUT, lora=True, head=True)) == pytest.approx(expected)


def test_under_lora_the_first_layers_input_needs_no_gradient():
    expected = {
        "linear": 2 * 5 * 576 * 2 - 2 * 5 * (64 + 32 + 32),
        "lora": 2 * (2 * 5 * 2 * 128 * 2) - 2 * 5 * 2 * (8 + 8 + 8),
        "attention": 2 * (2 * 2 * 12 * 4 * 2 * 2),
        "head": 2 * 3 * 8 * 10,
    }
    assert parts(backward_gemms(SHAPE, LAYOUT, head=True)) == pytest.approx(expected)


def test_dpo_adds_a_reference_pass_and_a_reward_model_has_no_head():
    dpo, reward = (parts(preference_gemms(SHAPE, LAYOUT, task=task)) for task in ("dpo", "reward"))
    assert dpo["head"] == 3 * 480
    assert "head" not in reward
    assert dpo["linear"] - reward["linear"] == 11520
    assert dpo["lora"] == reward["lora"]


def test_generation_reads_prompts_once_and_then_a_token_at_a_time():
    prompts = Layout(rows=2, width=3, tokens=6, pairs=12, responses=2)
    sums = parts(generation_gemms(SHAPE, prompts, new_tokens=4))
    assert sums["linear"] == 2 * 576 * 2 * (6 + 3 * 2)
    assert sums["head"] == 2 * 8 * 10 * (2 + 3 * 2)
    sums = parts(generation_gemms(SHAPE, prompts, new_tokens=4, samples=5))
    assert sums["linear"] == 2 * 576 * 2 * (6 + 3 * 2 * 5)


def test_ppo_is_a_generation_two_passes_and_its_updates():
    prompts = Layout(rows=2, width=3, tokens=6, pairs=12, responses=2)
    layout = Layout(rows=2, width=7, tokens=14, pairs=56, responses=8)
    one, two = (parts(ppo_gemms(SHAPE, prompts, layout, 4, epochs)) for epochs in (1, 2))
    update = parts([*forward_gemms(SHAPE, layout, lora=True, head=True), *backward_gemms(SHAPE, layout, head=True)])
    sampled = parts(generation_gemms(SHAPE, prompts, 4))
    assert {part: two[part] - one[part] for part in two} == pytest.approx(update)
    assert one["linear"] - update["linear"] - sampled["linear"] == 2 * 2 * 14 * 576 * 2
    assert one["head"] - update["head"] - sampled["head"] == 2 * 8 * 8 * 10


@pytest.mark.parametrize("rank", [0, 4])
def test_against_torchs_own_counter(rank: int):
    """Whole rows through the head, dense attention: then every product that autograd runs is counted."""
    model = tiny_model(attn_implementation="eager", tie_word_embeddings=False).train()
    shape = Shape.of(model.config, rank)
    rows, width = 2, 7
    if rank:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
    ids = torch.randint(250, (rows, width))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids).logits.sum().backward()
    everything = Layout(rows, width, rows * width, rows * width**2, rows * width)
    gemms = forward_gemms(shape, everything, lora=True, head=True) + backward_gemms(shape, everything, head=True)
    assert sum(gemm.flops for gemm in gemms) == pytest.approx(counter.get_total_flops())
