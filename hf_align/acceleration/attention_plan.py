"""Blocks for attention by branches: which tokens attend to which, in products of similar documents.

Notation: a block has D documents, padded to P prompt tokens and K responses of L tokens; KV key heads, G query heads
per key head.

    make_plan                          groups documents of similar length
        _groups, _parts                documents of each block, parts in which its queries are computed
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hf_align.layout.branches import Branches

MOST_PAIRS = 200_000
"""Maximum token pairs in a block: its scores, over all heads, should fit the processor's cache."""
PART = 96
"""Maximum query tokens in a part."""
BLOCK_COST = 10_000
"""Cost of one more block, in pairs of tokens (about 0.7 ms per block, measured on two cores)."""


@dataclass(frozen=True)
class _Part:
    """A range of queries of a block's prompts or responses; attention is causal, so later tokens aren't keys for them.

    Attributes:
        start: The first query token, counted from the prompt's or response's start.
        stop: One past the last.
        mask: `[1 or D, stop - start, N]`, added to their scores over N keys: the first `stop` tokens of the prompt, or
            all P of the prompt and the first `stop` of the response.
    """

    start: int
    stop: int
    mask: Tensor


@dataclass(frozen=True)
class _Block:
    """Documents computed together; index 0 is for their prompts, 1 for their responses.

    Attributes:
        positions: `[D, P]` and `[D, K, L]`, the tokens' flat positions; past a sequence's end its first position, and
            any position for a response that a document with fewer responses lacks.
        real: Same shapes, False past a sequence's end.
        parts: Parts in which the queries are computed.
    """

    positions: tuple[Tensor, Tensor]
    real: tuple[Tensor, Tensor]
    parts: tuple[list[_Part], list[_Part]]


@dataclass(frozen=True)
class _Rows:
    """Indices of the rows of a `[tokens * heads, d]` tensor in the blocks.

    Attributes:
        parts: For each block the rows of each part, prompts first: `[D, KV, G * part]`, then responses: `[D, K, KV, G *
            part]`.
        fake: `[..., 1]`, True where a row is padding; None if none is.
        inverse: `[tokens * heads]`, index of each row in all parts of all blocks joined; for padding, one past the
            last, which holds zeros.
    """

    parts: list[list[Tensor]]
    fake: list[list[Tensor | None]]
    inverse: Tensor

    def restore(self, results: list[Tensor]) -> Tensor:
        """Join the results of all parts of all blocks into a `[tokens * heads, d]` tensor."""
        flat = [result.flatten(0, -2) for result in results]
        return torch.cat([*flat, flat[0].new_zeros(1, flat[0].shape[-1])]).index_select(0, self.inverse)


@dataclass
class BranchPlan:
    """Attention of a batch as blocks of tokens that see each other; made once per batch, used by every layer."""

    tokens: int
    blocks: list[_Block]
    _queries: dict[tuple[int, int], _Rows] = field(default_factory=dict)
    _keys: dict[int, _Rows] = field(default_factory=dict)

    def queries(self, key_heads: int, group: int) -> _Rows:
        """The rows of queries, `group` heads per key head, in the blocks' parts."""
        if (key_heads, group) not in self._queries:
            parts = [[[slice(part.start, part.stop) for part in side] for side in block.parts] for block in self.blocks]
            self._queries[key_heads, group] = _rows(self, key_heads, group, parts)
        return self._queries[key_heads, group]

    def keys(self, key_heads: int) -> _Rows:
        """The rows of keys or values: one part for the prompts, one for the responses."""
        if key_heads not in self._keys:
            self._keys[key_heads] = _rows(self, key_heads, 1, [[[slice(None)]] * 2 for _ in self.blocks])
        return self._keys[key_heads]


def make_plan(
    branches: Branches, *, most_pairs: int = MOST_PAIRS, block_cost: int = BLOCK_COST, part_tokens: int = PART
) -> BranchPlan:
    """The blocks of a batch in the branch layout: documents of similar length together.

    Args:
        branches: The batch.
        most_pairs: Maximum token pairs in a block of several documents.
        block_cost: Cost of one more block, in pairs of tokens.
        part_tokens: Maximum query tokens computed together.
    """
    documents, parts = branches.num_documents, 1 + max(branches.num_responses)  # a prompt and its K responses
    doc, branch = branches.doc_ids.flatten(), branches.branch_ids.flatten()  # [R * T]
    part = torch.where(doc >= 0, doc * parts + branch, documents * parts)  # [R * T], padding last
    order = torch.argsort(part, stable=True)  # [R * T] flat positions, part by part
    lengths = torch.bincount(part, minlength=documents * parts + 1)
    starts = (lengths.cumsum(0) - lengths)[:-1].view(documents, parts)  # [D, 1 + K] in `order`
    lengths = lengths[:-1].view(documents, parts)  # [D, 1 + K]

    def positions(members: Tensor, of: slice) -> tuple[Tensor, Tensor]:  # [D, K, L] each
        column = torch.arange(int(lengths[members, of].max()))
        real = column < lengths[members, of, None]
        start = starts[members, of, None].clamp(max=len(order) - 1)  # a missing response may start past the end
        return order[start + column * real], real

    present = [part[: 1 + k] for part, k in zip(lengths.tolist(), branches.num_responses, strict=True)]
    blocks = []
    for group in _groups(present, most_pairs, block_cost):
        members, most = torch.tensor(group), max(branches.num_responses[number] for number in group)
        prompt, prompt_real = (x[:, 0] for x in positions(members, slice(0, 1)))  # [D, P] each
        branch, branch_real = positions(members, slice(1, 1 + most))  # [D, K, L] each
        seen = prompt_real[:1] if prompt_real.all() else prompt_real
        parts = (  # nothing precedes a prompt
            _parts(prompt_real[:1, :0], prompt.shape[1], part_tokens),
            _parts(seen, branch.shape[2], part_tokens),
        )
        blocks.append(_Block((prompt, branch), (prompt_real, branch_real), parts))
    return BranchPlan(doc.numel(), blocks)


def _groups(lengths: list[list[int]], most_pairs: int, block_cost: int) -> list[list[int]]:
    """Document indices of each block, similar lengths together.

    Args:
        lengths: Tokens of each document's prompt and responses.
        most_pairs: As in `make_plan`.
        block_cost: As in `make_plan`.
    """

    def pairs(prompt: int, responses: list[int]) -> int:
        return prompt * prompt + sum(length * (prompt + length) for length in responses)

    groups: list[list[int]] = []
    widest, padded = [0, 0, 0], 0  # P, L, K
    for number in sorted(range(len(lengths)), key=lambda n: (len(lengths[n]), sum(lengths[n]))):
        prompt, *responses = lengths[number]
        alone, sizes_alone = pairs(prompt, responses), [prompt, max(responses), len(responses)]
        wider = [max(sizes) for sizes in zip(widest, sizes_alone, strict=True)]
        together = (len(groups[-1]) + 1 if groups else 1) * pairs(wider[0], [wider[1]] * wider[2])
        if not groups or together > min(padded + alone + block_cost, most_pairs):
            groups.append([])
            wider = sizes_alone
            together = pairs(sizes_alone[0], [sizes_alone[1]] * sizes_alone[2])
        groups[-1].append(number)
        widest, padded = wider, together
    return groups


def _parts(seen: Tensor, length: int, most: int) -> list[_Part]:
    """The parts, of `most` tokens at most, of sequences of `length` that also see `seen` `[1 or D, P]` before them."""
    parts = []
    size = -(-length // -(-length // most))  # parts of about equal size
    for start in range(0, length, size):
        stop = min(start + size, length)
        causal = torch.ones(1, stop - start, stop, dtype=torch.bool).tril(start).expand(len(seen), -1, -1)
        sees = torch.cat([seen[:, None].expand(-1, stop - start, -1), causal], dim=2)  # [1 or D, queries, keys]
        parts.append(_Part(start, stop, torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)))
    return parts


def _rows(plan: BranchPlan, key_heads: int, group: int, parts: list[list[list[slice]]]) -> _Rows:
    """The rows of `key_heads` x `group` heads in the given parts of each block's prompts and responses."""
    heads = key_heads * group
    head = torch.arange(heads).view(key_heads, group, 1)  # [KV, G, 1]

    def by_head(x: Tensor) -> Tensor:  # [..., L] -> [..., KV, G, L]
        return x[..., None, None, :].expand(*x.shape[:-1], key_heads, group, x.shape[-1])

    rows, reals = [], []
    for block, of_block in zip(plan.blocks, parts, strict=True):
        sides = list(zip(block.positions, block.real, of_block, strict=True))
        # [D, KV, G * part] for prompts, [D, K, KV, G * part] for responses
        rows.append([(by_head(x[..., part]) * heads + head).flatten(-2) for x, _, side in sides for part in side])
        reals.append([by_head(real[..., part]).flatten(-2) for _, real, side in sides for part in side])
    in_order, real = (torch.cat([x.flatten() for block in blocks for x in block]) for blocks in (rows, reals))
    inverse = torch.full((plan.tokens * heads,), len(in_order))  # [tokens * H]
    inverse[in_order[real]] = torch.arange(len(in_order))[real]
    return _Rows(rows, [[None if x.all() else ~x[..., None] for x in block] for block in reals], inverse)
