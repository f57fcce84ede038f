"""Attention of one new token against torch's own."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hf_align.acceleration.attention import branch_attention_forward, decode_by_products
from tests.acceleration.operations import operations
from tests.acceleration.test_attention import Layer

BOUND = {torch.float32: 1e-6, torch.bfloat16: 2e-2}
"""In bfloat16 both round their output, to 2^-9 of numbers up to 3."""
TORCHS = "aten::scaled_dot_product_attention"


def states(dtype: torch.dtype, tokens: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 6, tokens, 8), (3, 2, 11, 8), (3, 2, 11, 8))
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["none", "bool", "added"])
def test_equals_torchs_kernel(dtype: torch.dtype, kind: str):
    query, key, value = states(dtype)
    seen = torch.ones(3, 1, 1, 11, dtype=torch.bool)
    seen[0, ..., :4] = False
    added = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    mask = {"none": None, "bool": seen, "added": added}[kind]
    layer = Layer()
    layer.num_key_value_groups = 3
    expected, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.3)
    undo = decode_by_products(layer)
    with operations() as calls, torch.no_grad():
        out, _ = branch_attention_forward(layer, query, key, value, mask, scaling=0.3)
    undo()
    assert not calls[TORCHS]
    assert out.shape == expected.shape == (3, 1, 6, 8) and out.dtype == dtype
    torch.testing.assert_close(out, expected, atol=BOUND[dtype], rtol=0)


def test_autocast_leaves_the_products_in_float32():
    """In bfloat16 oneDNN would compile and keep code for each number of keys, so for each token."""
    layer, given = Layer(), states(torch.bfloat16)
    undo = decode_by_products(layer)
    with torch.no_grad():
        plain, _ = branch_attention_forward(layer, *given, None)
        with torch.autocast("cpu", torch.bfloat16), operations() as calls:
            under, _ = branch_attention_forward(layer, *given, None)
    undo()
    assert calls["aten::bmm"] == 2 and torch.equal(under, plain)


@pytest.mark.parametrize("case", ["gradients", "several tokens", "a mask by head", "another model"])
def test_what_else_is_torchs(case: str):
    query, key, value = states(torch.float32, 2 if case == "several tokens" else 1)
    mask = torch.zeros(3, 6, 1, 11) if case == "a mask by head" else None
    layer = Layer()
    undo = decode_by_products(Layer() if case == "another model" else layer)
    with operations() as calls, torch.set_grad_enabled(case == "gradients"):
        branch_attention_forward(layer, query, key, value, mask)
    undo()
    assert calls[TORCHS] == 1
