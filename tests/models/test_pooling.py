"""Pooling: only a response's own sequence counts, in values and gradients, whatever the layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hf_align.layout.branches import Branches, build_branches
from hf_align.models.pooling import pool, pool_prefixes, pool_response

DOCUMENTS = [([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9], [[10], [11, 12]])]
BRANCHES = build_branches(DOCUMENTS, pad_token_id=0)
LAYOUTS = {
    "branches": BRANCHES,
    "packed": build_branches(DOCUMENTS, pad_token_id=0, row_tokens=16),
    "rows": BRANCHES.as_separate(),
}


@pytest.mark.parametrize("batch", LAYOUTS.values(), ids=LAYOUTS)
def test_pooling_counts_real_tokens_only(batch: Branches):
    hidden = batch.input_ids[..., None].float()  # a token's state is its id
    expected = {"last": [5, 8, 10, 12], "first": [1, 1, 9, 9], "max": [5, 8, 10, 12], "mean": [3, 4.5, 9.5, 32 / 3]}
    for pooling, values in expected.items():
        assert pool(hidden, batch, pooling)[:, 0].tolist() == pytest.approx(values)
        assert pool(-hidden, batch, pooling)[:, 0].tolist() == pytest.approx(
            [-value for value in ([1, 1, 9, 9] if pooling == "max" else values)]
        )
    prefixes = {
        "last": [4, 5, 6, 7, 8, 10, 11, 12],
        "first": [1, 1, 1, 1, 1, 9, 9, 9],
        "max": [4, 5, 6, 7, 8, 10, 11, 12],
        "mean": [2.5, 3, 3, 19 / 5, 4.5, 9.5, 10, 32 / 3],
    }
    for pooling, values in prefixes.items():
        assert pool_prefixes(hidden, batch, pooling)[:, 0].tolist() == pytest.approx(values)


@pytest.mark.parametrize("batch", LAYOUTS.values(), ids=LAYOUTS)
def test_the_mean_of_a_response_leaves_its_prompt_out(batch: Branches):
    assert pool_response(batch.input_ids[..., None].float(), batch)[:, 0].tolist() == pytest.approx([4.5, 7, 10, 11.5])


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max", "attention"])
@pytest.mark.parametrize("batch", LAYOUTS.values(), ids=LAYOUTS)
def test_gradients_are_those_of_each_sequence_alone(batch: Branches, pooling: str):
    torch.manual_seed(0)
    attention = nn.Linear(4, 1)
    hidden = torch.randn(*batch.input_ids.shape, 4, requires_grad=True)
    weights = torch.randn(4, 4)  # of the responses' pooled states
    pooled = pool(hidden, batch, pooling, attention if pooling == "attention" else None)
    (gradient,) = torch.autograd.grad((pooled * weights).sum(), hidden)

    expected = hidden.new_zeros(())
    for row, positions, real in zip(weights, *batch.members(), strict=True):
        states = hidden.flatten(0, 1)[positions[real]]
        response = states[batch.branch_ids.flatten()[positions[real]] > 0]
        alone: dict[str, Tensor] = {"last": states[-1], "first": states[0], "mean": states.mean(0)}
        alone["max"] = states.amax(0)
        alone["attention"] = attention(response)[:, 0].softmax(0) @ response
        expected = expected + (alone[pooling] * row).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, hidden)[0], atol=1e-6, rtol=1e-5)


def test_states_of_padding_never_count_even_if_they_are_nan():
    batch, attention = LAYOUTS["rows"], nn.Linear(1, 1)
    hidden = batch.input_ids[..., None].float().masked_fill(batch.doc_ids[..., None] < 0, torch.nan)
    for pooling in ("last", "first", "mean", "max"):
        assert pool(hidden, batch, pooling).isfinite().all() and pool_prefixes(hidden, batch, pooling).isfinite().all()
    assert pool(hidden, batch, "last", attention).isfinite().all()


def test_attention_is_exact_for_scores_that_overflow_an_exponential():
    batch = LAYOUTS["branches"]
    attention = nn.Linear(1, 1, bias=False)
    nn.init.constant_(attention.weight, 1000.0)
    hidden = batch.input_ids[..., None].float()
    assert pool(hidden, batch, "last", attention)[:, 0].tolist() == [5, 8, 10, 12]
    assert pool_prefixes(hidden, batch, "last", attention)[:, 0].tolist() == [4, 5, 6, 7, 8, 10, 11, 12]
