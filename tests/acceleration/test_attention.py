"""Attention by blocks against torch's own under the dense mask."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hf_align.acceleration.attention import attach_plan, attend_by_blocks, branch_attention_forward
from hf_align.acceleration.attention_plan import make_plan
from hf_align.layout.branches import Branches, Document, build_branches
from hf_align.models.policy import PolicyModel
from tests.acceleration.operations import operations
from tests.tiny import save_tiny

HEADS, KEY_HEADS, SIZE = 6, 2, 8


class Layer(nn.Module):
    """The attributes of an attention layer that transformers' function reads."""

    num_key_value_groups = HEADS // KEY_HEADS
    is_causal = True


def documents(count: int, branches: int | tuple[int, ...], longest: int, seed: int = 0) -> list[Document]:
    """Documents with this many responses each, or with these numbers in turn."""
    draw = random.Random(seed)
    numbers = (branches,) if isinstance(branches, int) else branches
    return [
        (
            list(range(1, draw.randint(2, longest))),
            [list(range(1, draw.randint(2, longest))) for _ in range(numbers[number % len(numbers)])],
        )
        for number in range(count)
    ]


def dense(branches: Branches, dtype: torch.dtype = torch.float32) -> Tensor:
    mask = branches.attention_mask()
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def states(branches: Branches, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    rows, tokens = branches.input_ids.shape
    torch.manual_seed(0)
    return [
        torch.randn(rows, tokens, heads, SIZE).to(dtype).transpose(1, 2).requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def attend(
    mask: Tensor, branches: Branches, qkv: list[Tensor], function: Any = branch_attention_forward
) -> list[Tensor]:
    """Output at real tokens, and the gradients of its weighted sum."""
    for x in qkv:
        x.grad = None
    out, _ = function(Layer(), *qkv, mask, scaling=0.3)
    torch.manual_seed(1)
    (out * torch.randn(out.shape) * (branches.doc_ids >= 0)[:, :, None, None]).sum().backward()
    return [out[branches.doc_ids >= 0], *(x.grad.clone() for x in qkv)]  # type: ignore[union-attr]


@pytest.mark.parametrize("row_tokens", [None, 70])
@pytest.mark.parametrize("branches_each", [1, 2, 4, (7, 1, 3, 2)])
@pytest.mark.parametrize("small", [False, True])
def test_outputs_and_gradients_are_those_of_the_dense_mask(
    row_tokens: int | None, branches_each: int | tuple[int, ...], small: bool
):
    # Small, so that these short documents fall into several blocks and parts.
    limits = {"part_tokens": 5, "most_pairs": 2000} if small else {"block_cost": 10**6}
    branches = build_branches(documents(7, branches_each, 24), pad_token_id=0, row_tokens=row_tokens)
    qkv = states(branches)
    expected = attend(dense(branches), branches, qkv, sdpa_attention_forward)
    plan = make_plan(branches, **limits)
    assert (len(plan.blocks) > 1) == small
    assert any(len(part) > 1 for block in plan.blocks for part in block.parts) == small
    for ours, theirs in zip(attend(attach_plan(dense(branches), plan), branches, qkv), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_padding_gets_no_gradient():
    branches = build_branches(documents(4, 2, 20), pad_token_id=0, row_tokens=60)
    padding = branches.doc_ids < 0
    assert padding.any()
    _, *gradients = attend(attach_plan(dense(branches), make_plan(branches)), branches, states(branches))
    for gradient in gradients:
        assert not gradient.transpose(1, 2)[padding].any()


def test_bfloat16_is_as_near_to_float32_as_torchs_kernel():
    branches = build_branches(documents(6, 2, 40), pad_token_id=0)
    exact = attend(
        dense(branches), branches, [x.detach().float().requires_grad_() for x in states(branches, torch.bfloat16)]
    )
    errors = []
    for mask in (attach_plan(dense(branches, torch.bfloat16), make_plan(branches)), dense(branches, torch.bfloat16)):
        actual = attend(mask, branches, states(branches, torch.bfloat16))
        errors.append([(a.float() - b).square().mean().sqrt() for a, b in zip(actual, exact, strict=True)])
    for ours, torchs in zip(*errors, strict=True):
        assert ours <= 1.25 * torchs


@pytest.mark.parametrize("option", [{"dropout": 0.5}, {"position_bias": torch.zeros(1, HEADS, 1, 1)}])
def test_what_blocks_cant_do_goes_to_transformers(option: dict[str, Any]):
    branches = build_branches(documents(3, 2, 12), pad_token_id=0)
    mask = attach_plan(dense(branches), make_plan(branches))
    query, key, value = states(branches)
    for options, by_blocks in (({}, 1), (option, 0)):
        with operations() as calls:
            out, _ = branch_attention_forward(Layer(), query, key, value, mask, **options)
        assert out.isfinite().all()
        assert calls["_BranchAttention"] == by_blocks


def test_documents_of_unlike_length_dont_pad_each_other():
    long, short = ([1] * 200, [[1] * 100] * 2), ([1] * 10, [[1] * 5] * 2)
    branches = build_branches([long, short, long, short], pad_token_id=0)
    shapes = [tuple(block.positions[1].shape) for block in make_plan(branches, block_cost=0).blocks]
    assert sorted(shapes) == [(2, 2, 5), (2, 2, 100)]


def test_few_responses_arent_padded_to_many():
    many, one = ([1] * 10, [[1] * 50] * 7), ([1] * 10, [[1] * 50])
    branches = build_branches([many, one, many, one], pad_token_id=0)
    shapes = [tuple(block.positions[1].shape) for block in make_plan(branches, block_cost=0).blocks]
    assert sorted(shapes) == [(2, 1, 50), (2, 7, 50)]


def test_the_last_documents_missing_responses_are_nowhere():
    """Without padding after them, they would start past the last token."""
    branches = build_branches([([1, 2, 3], [[4]] * 3), ([5, 6], [[7, 8, 9, 10]])], pad_token_id=0)
    assert (branches.doc_ids >= 0).all()
    plan, qkv = make_plan(branches, block_cost=10**6), states(branches)
    assert len(plan.blocks) == 1 and not plan.blocks[0].real[1][0, 1:].any()
    expected = attend(dense(branches), branches, qkv, sdpa_attention_forward)
    for ours, theirs in zip(attend(attach_plan(dense(branches), plan), branches, qkv), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_computes_by_blocks(tmp_path: Any, checkpointing: bool):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_tiny(tmp_path), attn_implementation="sdpa").train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    policy = PolicyModel(model)
    branches = build_branches(documents(3, 2, 12), pad_token_id=0)
    undo = attend_by_blocks(policy)
    with operations() as calls:
        logps = policy(branches)
        logps.sum().backward()
    undo()
    layers = model.config.num_hidden_layers
    assert calls["_BranchAttention"] == layers * (2 if checkpointing else 1), (
        "checkpoints must recompute what was computed"
    )
    gradients = {name: x.grad.clone() for name, x in policy.named_parameters() if x.grad is not None}
    policy.zero_grad()
    plain = branches.as_separate()
    expected = policy(plain)
    expected.sum().backward()
    torch.testing.assert_close(logps, expected, atol=1e-5, rtol=1e-5)
    for name, x in policy.named_parameters():
        if x.grad is not None:
            torch.testing.assert_close(gradients[name], x.grad, atol=1e-4, rtol=1e-3)


def test_a_loop_may_go_backwards_inside_autocast(tmp_path: Any):
    from transformers import AutoModelForCausalLM

    policy = PolicyModel(AutoModelForCausalLM.from_pretrained(save_tiny(tmp_path), attn_implementation="sdpa").train())
    branches = build_branches(documents(3, 2, 12), pad_token_id=0)
    gradients = []
    undo = attend_by_blocks(policy)
    for inside in (False, True):
        policy.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = policy(branches).sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        gradients.append(torch.cat([x.grad.flatten() for x in policy.parameters() if x.grad is not None]))
    undo()
    torch.testing.assert_close(*gradients, atol=0.05 * float(gradients[0].norm()), rtol=0)
