"""The branch layout compared with hand-made rows and with plain sequences."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from accelerate.data_loader import DataLoaderShard
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from hf_align.layout.branches import Branches, Document, build_branches

MIXED: list[Document] = [
    ([1, 2], [[3], [4, 5], [6, 7, 8], [9], [10, 11], [12], [13]]),
    ([14], [[15, 16]]),
    ([17, 18, 19], [[20], [21, 22], [23]]),
    ([24, 25], [[26], [27, 28]]),
]
"""Prompts with 7, 1, 3 and 2 responses."""
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
    assert batch.last.tolist() == [4, 7, 9, 11]
    assert batch.lengths().tolist() == [2, 3, 1, 2]
    assert batch.longest == batch.as_separate().longest == 6


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
        assert ids[layout.last].tolist() == [5, 8, 10, 12, 16, 17]
        assert layout.targets.tolist() == [4, 5, 6, 7, 8, 10, 11, 12, 15, 16, 17]
        assert ids[layout.predictors].tolist() == [3, 4, 3, 6, 7, 9, 9, 11, 14, 15, 14]
        assert layout.position_ids.flatten()[layout.last].tolist() == [4, 5, 1, 2, 3, 2]
        members, real = layout.members()
        sequences = [ids[row[keep]].tolist() for row, keep in zip(members, real, strict=True)]
        assert sequences == [[*prompt, *response] for prompt, responses in DOCUMENTS for response in responses]


@pytest.mark.parametrize("row_tokens", [None, 9, 20, 60])
def test_prompts_have_any_number_of_responses_each(row_tokens: int | None):
    batch = build_branches(MIXED, pad_token_id=0, row_tokens=row_tokens)
    plain = batch.as_separate()
    sequences = [([*prompt, *response], len(response)) for prompt, responses in MIXED for response in responses]
    assert plain.input_ids.shape == (13, 5)
    assert batch.documents(3) == MIXED[:3]
    for layout in (batch, plain):
        assert layout.num_responses == (7, 1, 3, 2) and layout.num_documents == 4
        assert layout.lengths().tolist() == [length for _, length in sequences]
        ids, (members, real) = layout.input_ids.flatten(), layout.members()
        assert [ids[row[keep]].tolist() for row, keep in zip(members, real, strict=True)] == [s for s, _ in sequences]
        assert ids[layout.last].tolist() == [ids[-1] for ids, _ in sequences]
        assert layout.targets.tolist() == [token for ids, length in sequences for token in ids[-length:]]
        predicting = [token for ids, length in sequences for token in ids[-length - 1 : -1]]
        assert ids[layout.predictors].tolist() == predicting
        assert layout.sum_by_branch(torch.ones(len(layout.targets))).tolist() == layout.lengths().tolist()
    # Each row of the mask has as many tokens as `prompt + response` so far.
    seen = batch.attention_mask().sum(-1)[:, 0][batch.doc_ids >= 0]
    assert torch.equal(seen, batch.position_ids[batch.doc_ids >= 0] + 1)


def test_separate_rows_are_right_padded():
    plain = build_branches(DOCUMENTS[:1], pad_token_id=0).as_separate()
    assert plain.attention_mask().tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert plain.position_ids.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 5]]


def test_sums_by_branch_keep_gradients():
    batch = build_branches(DOCUMENTS[:2], pad_token_id=0)
    values = torch.arange(1.0, 9.0, requires_grad=True)
    sums = batch.sum_by_branch(values)
    assert sums.tolist() == [3.0, 12.0, 6.0, 15.0]
    (sums * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1, 1, 2, 2, 2, 3, 4, 4]


def lay_out(documents: list[Document]) -> dict[str, Any]:
    """A collator's output."""
    return {"weight": torch.ones(len(documents)), "branches": build_branches(documents, pad_token_id=0).as_separate()}


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_travel_whole(monkeypatch: pytest.MonkeyPatch, workers: int):
    """A batch moves through workers, pinned memory and accelerate's loader to a device."""
    pinned, moved = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (pinned.append(tensor), tensor)[1])
    expected = lay_out(MIXED)["branches"]
    loader = DataLoader(MIXED, batch_size=4, collate_fn=lay_out, num_workers=workers)  # type: ignore[arg-type]
    for batch in DataLoaderShard(loader.dataset, device=torch.device("meta"), batch_size=4, collate_fn=lay_out):
        moved.append(batch["branches"])
    batch: Any = next(iter(loader))
    for branches in (batch["branches"], cast(Any, pin_memory(batch))["branches"], moved[0]):
        assert type(branches) is Branches
        assert branches.separate and branches.num_responses == expected.num_responses
    assert moved[0].last.is_meta and moved[0].input_ids.is_meta
    assert torch.equal(batch["branches"].predictors, expected.predictors)
    assert len(pinned) == 9, "eight tensors of the layout and the weights"


@pytest.mark.parametrize("documents", [[([], [[1], [2]])], [([1], [[], [2]])], [([1], [[1]]), ([1], [])]])
def test_empty_documents_are_refused(documents: list):
    with pytest.raises(ValueError, match="Document"):
        build_branches(documents, pad_token_id=0)
