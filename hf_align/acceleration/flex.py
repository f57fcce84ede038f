"""The branch mask for FlexAttention: a table of the blocks in which some token sees another.

It is built from the documents and branches in each block, so no `[T, T]` tensor exists, neither here nor in attention.
transformers passes a `BlockMask` unchanged to the layers of a model with `attn_implementation="flex_attention"`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_align.layout.branches import Branches

BLOCK = 128
"""Tokens per side of a block, torch's default."""


def block_mask(branches: Branches) -> BlockMask:
    """Rule of `branches.attention_mask()`, `[R, 1, T, T]`, for FlexAttention."""
    _register()
    doc, branch = branches.doc_ids, branches.branch_ids
    width = doc.shape[1]

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_branch_or_prompt = (branch[row, key] == 0) | (branch[row, key] == branch[row, query])
        return (key <= query) & (doc[row, key] == doc[row, query]) & same_branch_or_prompt

    some, every = _visible_blocks(doc, branch)
    not_later = torch.ones(some.shape[1:], dtype=torch.bool, device=doc.device).tril()
    full = some & every & not_later.tril(-1)  # computed without evaluating `sees`
    full[:, width // BLOCK :] = False  # the last block of queries may be incomplete
    partial = some & not_later & ~full
    return BlockMask.from_kv_blocks(
        *_table(partial), *_table(full), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(width, width)
    )


def short_rows_attention_forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """transformers' `flex_attention_forward`, on a GPU always with the training kernel.

    Rows of fewer than 128 tokens would get the decoding kernel, which torch 2.11 fails to compile for several queries.
    """
    if query.shape[2] > 1 and query.device.type == "cuda" and kwargs.get("kernel_options") is None:
        kwargs["kernel_options"] = {"FORCE_USE_FLEX_ATTENTION": True}
    return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)


def can_train(device: torch.device) -> bool:
    """Whether what transformers finds under "flex_attention" has a backward pass there; torch's own has none on a CPU.

    A function of another library may have one.
    """
    torchs = ALL_ATTENTION_FUNCTIONS["flex_attention"] in (flex_attention_forward, short_rows_attention_forward)
    return device.type != "cpu" or not torchs


def _register() -> None:
    """Register our function with transformers, once per process."""
    if ALL_ATTENTION_FUNCTIONS["flex_attention"] is flex_attention_forward:
        ALL_ATTENTION_FUNCTIONS.register("flex_attention", short_rows_attention_forward)


def _visible_blocks(doc: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
    """For each pair of blocks, whether some, or every, pair of their tokens may attend, causality aside.

    Args:
        doc: `[R, T]` document of each token.
        branch: `[R, T]` branch of each token.

    Returns:
        Two bool tensors `[R, query blocks, key blocks]`.
    """
    rows, width = doc.shape
    # The mask treats all tokens of a part (a prompt, a response or padding) alike. So two products of "block holds
    # part" with "part sees part" give "block sees block".
    changes = (doc[:, 1:] != doc[:, :-1]) | (branch[:, 1:] != branch[:, :-1])
    part = torch.nn.functional.pad(changes.long().cumsum(1), (1, 0))
    count = int(part.max()) + 1
    held = torch.zeros(rows, -(-width // BLOCK), count, device=doc.device)
    held[torch.arange(rows, device=doc.device)[:, None], torch.arange(width, device=doc.device) // BLOCK, part] = 1
    doc, branch = (torch.full((rows, count), -1, device=ids.device).scatter_(1, part, ids) for ids in (doc, branch))
    same_branch_or_prompt = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    sees = (doc[:, :, None] == doc[:, None, :]) & same_branch_or_prompt
    return held @ sees.float() @ held.mT > 0, held @ (~sees).float() @ held.mT == 0


def _table(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Count of set blocks per row, `[R, 1, blocks]`, and block indices, set ones first, `[R, 1, blocks, blocks]`."""
    blocks = blocks[:, None].int()
    return blocks.sum(-1, dtype=torch.int32), blocks.argsort(dim=-1, descending=True, stable=True).int()
