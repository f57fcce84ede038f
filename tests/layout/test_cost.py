"""Work of each layout, counted from lengths and compared with the batches built from them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaModel, MambaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_align.acceleration.attention import PLAN
from hf_align.acceleration.registry import Setting, accelerated
from hf_align.layout.branches import Branches, Document, build_branches
from hf_align.layout.compare import compare_layouts, noise_bound
from hf_align.layout.cost import Costs, Lengths, Work, branch_work, choose_layout, costs_of, separate_work
from hf_align.models.loading import load_policy
from hf_align.models.policy import PolicyModel
from hf_align.models.sources import load_tokenizer

BATCH = [(5, [3, 2]), (2, [1, 4]), (1, [2, 2])]
SMALL = LlamaConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)


@pytest.mark.parametrize("batch", [BATCH, [(5, [3]), (2, [1, 4, 1, 1, 1, 2, 1]), (1, [2, 2]), (4, [1, 1, 2])]])
@pytest.mark.parametrize("row_tokens", [None, 11, 30])
def test_the_work_is_that_of_the_batches_that_are_built(batch: list[Lengths], row_tokens: int | None):
    documents = [([1] * prompt, [[1] * length for length in responses]) for prompt, responses in batch]
    branches = build_branches(documents, pad_token_id=0, row_tokens=row_tokens)
    dense = branch_work(batch, row_tokens=row_tokens)
    assert dense.tokens == branches.input_ids.numel()
    assert dense.pairs == branches.attention_mask().numel()
    separate = branches.as_separate()
    assert separate_work(batch).tokens == separate.input_ids.numel()
    assert separate_work(batch).pairs == separate.input_ids.shape[0] * separate.input_ids.shape[1] ** 2


def test_blocks_leave_out_what_the_mask_hides():
    # The prompt with itself, each response with the prompt and itself: 25 + 3 * 8 + 2 * 7 and so on.
    assert branch_work(BATCH, by_block=True).pairs == (25 + 24 + 14) + (4 + 3 + 24) + (1 + 6 + 6)
    assert separate_work([(2, [1, 2])], causal=True).pairs == (1 + 2 + 3) + (1 + 2 + 3 + 4)


def test_costs_are_those_of_a_forward_pass():
    model, batch, width = LlamaModel(SMALL), 2, 24
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(batch, width, dtype=torch.long))
    costs = costs_of(SMALL)
    assert costs is not None
    linear = sum(count for op, count in counter.get_flop_counts()["Global"].items() if "mm" in str(op))
    assert costs.token * batch * width == pytest.approx(linear, rel=0.02)  # rotary embeddings are a product, too
    assert costs.pair == 4 * SMALL.num_hidden_layers * SMALL.num_attention_heads * 8


def test_a_mixture_counts_the_experts_that_a_token_sees():
    settings = {**SMALL.to_dict(), "moe_intermediate_size": 10, "num_experts_per_tok": 4}
    assert costs_of(SimpleNamespace(**settings)) == costs_of(SMALL)


def test_a_config_without_heads_has_no_costs():
    assert costs_of(MambaConfig(hidden_size=16, num_hidden_layers=1)) is None
    assert choose_layout([BATCH], None).layout == "branch"


def test_a_shared_prompt_makes_branches_the_cheaper_layout():
    choice = choose_layout([[(110, [50, 50])] * 4], Costs(token=100, pair=1))
    assert choice.layout == "branch"
    assert "branches would take" in choice.reason and "(840 tokens instead of 1280" in choice.reason


@pytest.mark.parametrize(
    ("documents", "by_block", "layout"),
    [
        ([(4, [1000, 1000])], False, "separate"),  # hardly a prompt, and responses that a dense mask computes in vain
        ([(4, [1000, 1000])], True, "branch"),  # blocks compute neither
        ([(1000, [400, 400])], False, "branch"),
        ([(100, [20]), (100, [20])], False, "separate"),  # one response each: the same work, and no mask to make
        ([(1, [900, 2]), (1, [2, 900])], True, "branch"),  # rows of like length, although the pairs aren't
    ],
)
def test_the_cheaper_layout_is_chosen(documents: list, by_block: bool, layout: str):
    costs = Costs(token=6000, pair=3)
    assert choose_layout([documents], costs, by_block=by_block).layout == layout


def test_packed_rows_count_with_their_width():
    batch = [(40, [10, 10])] * 8
    assert branch_work(batch, row_tokens=240) == Work(tokens=480, pairs=2 * 240**2)
    narrow, wide = (choose_layout([batch], Costs(token=50, pair=1), row_tokens=rows).layout for rows in (None, 480))
    assert (narrow, wide) == ("branch", "separate")


@pytest.mark.slow
def test_sixteen_bit_rounding_passes_and_a_broken_mask_does_not(base_dir: str, monkeypatch: pytest.MonkeyPatch):
    """Short responses of the real model in bfloat16, where two kernels differ most for their mean."""
    policy = PolicyModel(load_policy(base_dir))
    tokenizer = load_tokenizer(base_dir)
    texts = [("The sky is", " blue.", " green."), ("The sea is", " deep.", " dry.")]
    documents: list[Document] = [
        (tokenizer(prompt).input_ids, [tokenizer(response).input_ids for response in responses])
        for prompt, *responses in texts
    ]

    def without_mask(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        mask = torch.zeros_like(mask) if hasattr(mask, PLAN) else mask  # that of branches
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    def difference() -> tuple[float, float]:
        def numbers(batch: Branches) -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                return policy(batch)

        actual = compare_layouts(numbers, documents, torch.device("cpu"))
        return float(actual.branch), float(noise_bound(actual.plain, exact=False))

    with accelerated(policy, Setting.of(policy, "score")):
        actual, bound = difference()
        assert actual < 0.6 * bound
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", without_mask)  # type: ignore[arg-type]
        broken, bound = difference()
    assert broken > 1.5 * bound
