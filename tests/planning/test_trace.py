"""Traces against what can be computed by hand, and traces of a few layers against one of all."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import Gemma2Config, LlamaConfig

from hf_align.layout.branches import build_branches
from hf_align.models.policy import PolicyModel
from hf_align.planning.outline import outline
from hf_align.planning.phases import Setup, first_token, update
from hf_align.planning.trace import Trace, new_fakes

SETUP = Setup("cuda", torch.float32, "auto")


def test_a_product_and_its_gradients_by_hand() -> None:
    mode = new_fakes()
    with mode:
        weight = nn.Parameter(torch.empty(30, 20))
        x = torch.empty(10, 20)
    with Trace(mode, [weight, x]) as trace:
        hidden = functional.linear(x, weight)  # 10 x 30
        assert trace.live == 4 * 300
        out = hidden.square()  # another; its gradient needs the first
        loss = out.sum()
        del out
        assert trace.live == 4 * 300 + 4
        loss.backward()
    assert trace.measured().operations == 2 * 2 * 10 * 20 * 30, "forward, and the weight's gradient; x needs none"
    assert weight.grad is not None and trace.live >= 4 * 600
    assert trace.peak < 4 * (4 * 300 + 600 + 10)


def test_freed_tensors_and_views_do_not_count() -> None:
    mode = new_fakes()
    with mode:
        x = torch.empty(1000)
    with Trace(mode, [x]) as trace:
        first = x + 1
        view = first.view(10, 100)
        assert trace.live == 4000
        del first
        assert trace.live == 4000, "the view holds it"
        del view
        assert trace.live == 0
        assert torch.arange(3).max().item() == 2, "small tensors of indices are real"
        assert torch.zeros(2**19).nbytes > 2**20 and trace.peak >= 2**21
    assert trace.peak < 2**21 + 5000


def test_two_and_four_layers_say_what_six_take() -> None:
    sizes: Any = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "vocab_size": 100}
    llama = LlamaConfig(num_hidden_layers=6, num_key_value_heads=2, **sizes)
    gemma = Gemma2Config(num_hidden_layers=6, head_dim=16, num_key_value_heads=2, **sizes)  # two kinds of layers
    branches = build_branches([([1] * 20, [[1] * 20] * 2)], pad_token_id=0)
    for config in (llama, gemma):
        wrapper: Any = PolicyModel(outline(config, dtype=torch.float32).model)
        told = update(SETUP, wrapper, branches)
        for layer in wrapper.model.model.layers:  # each a kind of its own, so that none is left out
            layer.__class__ = type("Layer", (type(layer),), {})
        traced = update(SETUP, wrapper, branches)
        assert told.peak == pytest.approx(traced.peak, rel=0.01)
        assert told.operations == pytest.approx(traced.operations, rel=0.01)
        assert len(wrapper.model.model.layers) == wrapper.model.config.num_hidden_layers == 6


def test_layers_left_out_leave_no_gaps_in_a_cache() -> None:
    """Of every other layer more are kept than of those between, and a cache has as many layers as are kept."""
    sizes: Any = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "vocab_size": 100}
    config = Gemma2Config(num_hidden_layers=8, head_dim=16, num_key_value_heads=2, **sizes)
    wrapper: Any = PolicyModel(outline(config, dtype=torch.float32).model)
    told = first_token(SETUP, wrapper, 2, 20)
    assert [layer.self_attn.layer_idx for layer in wrapper.model.model.layers] == list(range(8))
    for layer in wrapper.model.model.layers:
        layer.__class__ = type("Layer", (type(layer),), {})
    assert told.peak == pytest.approx(first_token(SETUP, wrapper, 2, 20).peak, rel=0.01)
