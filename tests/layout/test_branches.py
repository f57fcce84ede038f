"""The branch layout against hand-made rows and against plain sequences."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from hf_align.layout.branches import Branches, build_branches

DOCUMENTS = [([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9], [[10], [11, 12]]), ([13, 14], [[15, 16], [17]])]


def test_a_row_is_a_prompt_followed_by_its_branches():
    batch = build_branches(DOCUMENTS[:2], pad_token_id=99)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 99, 99, 99, 99]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5], [0, 1, 1, 2, 0, 0, 0, 0]]
    assert batch.doc_ids.tolist() == [[0] * 8, [1] * 4 + [-1] * 4]
    assert batch.branch_ids.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 2, -1, -1, -1, -1]]
    assert batch.targets.tolist() == [4, 5, 6, 7, 8, 10, 11, 12]
    assert batch.predictors.tolist() == [2, 3, 2, 5, 6, 8, 8, 10]
    assert batch.token_branch.tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    assert batch.last.tolist() == [[4, 7], [9, 11]]
    assert batch.lengths().tolist() == [[2, 3], [1, 2]]
    assert batch.longest() == 6


def test_the_mask_shows_a_token_its_prompt_and_its_own_branch_only():
    mask = build_branches([([1, 2], [[3, 4], [5]])], pad_token_id=0).attention_mask()[0, 0].int()
    assert mask.tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]


def test_packed_documents_never_see_each_other():
    batch = build_branches(DOCUMENTS, pad_token_id=0, row_tokens=12)
    assert batch.input_ids.shape == (2, 9), "8 and 5 + 4 tokens, not 8 + 4 and 5: every row is as long as the fullest"
    mask, doc = batch.attention_mask()[:, 0], batch.doc_ids
    assert not mask[doc[:, :, None] != doc[:, None, :]].any()
    assert mask.diagonal(dim1=1, dim2=2).all(), "a token that sees nothing makes softmax NaN"


@pytest.mark.parametrize("row_tokens", [None, 9, 30])
def test_every_layout_holds_the_same_tokens_in_the_same_order(row_tokens: int | None):
    batch = build_branches(DOCUMENTS, pad_token_id=0, row_tokens=row_tokens)
    plain = batch.as_separate()
    assert batch.documents(3) == [(p, r) for p, r in DOCUMENTS]
    for layout in (batch, plain):
        ids = layout.input_ids.flatten()
        assert ids[layout.last].tolist() == [[5, 8], [10, 12], [16, 17]]
        assert layout.targets.tolist() == [4, 5, 6, 7, 8, 10, 11, 12, 15, 16, 17]
        assert ids[layout.predictors].tolist() == [3, 4, 3, 6, 7, 9, 9, 11, 14, 15, 14]
        assert layout.position_ids.flatten()[layout.last].tolist() == [[4, 5], [1, 2], [3, 2]]
        members, real = layout.members()
        sequences = [ids[row[keep]].tolist() for row, keep in zip(members, real, strict=True)]
        assert sequences == [[*prompt, *response] for prompt, responses in DOCUMENTS for response in responses]


def test_separate_rows_are_right_padded():
    plain = build_branches(DOCUMENTS[:1], pad_token_id=0).as_separate()
    assert plain.attention_mask().tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert plain.position_ids.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 5]]


def test_sums_by_branch_keep_gradients():
    batch = build_branches(DOCUMENTS[:2], pad_token_id=0)
    values = torch.arange(1.0, 9.0, requires_grad=True)
    sums = batch.sum_by_branch(values)
    assert sums.tolist() == [[3.0, 12.0], [6.0, 15.0]]
    (sums * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1, 1, 2, 2, 2, 3, 4, 4]


def test_tensors_round_trip():
    batch = build_branches(DOCUMENTS, pad_token_id=0)
    again = Branches(**cast(dict[str, Any], batch.tensors()))
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in batch.tensors().items())


@pytest.mark.parametrize("documents", [[([], [[1], [2]])], [([1], [[], [2]])], [([1], [[1], [2]]), ([1], [[2]])]])
def test_empty_or_uneven_documents_are_refused(documents: list):
    with pytest.raises(ValueError, match="Document"):
        build_branches(documents, pad_token_id=0)
