"""Batches in which a prompt is encoded once and every response is a branch of it.

```
prompt p p p p | chosen c c c | rejected r r r r        position: 0 1 2 3 | 4 5 6 | 4 5 6 7
```

A token sees its own prompt and the earlier tokens of its own branch, never another branch; the positions of every
branch restart where the prompt ends. The log-probabilities, rewards and gradients are therefore those of separate
sequences `prompt + response`, at the price of one prompt instead of K. Several documents (a prompt with its branches)
can share a row; `doc_ids` keeps them apart.

Notation: R rows, T tokens a row, D documents (prompts), K branches a document, N response tokens in all, counted
document by document and branch by branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

Document = tuple[Sequence[int], Sequence[Sequence[int]]]
"""A prompt's token ids and those of its K responses."""


@dataclass(frozen=True)
class Branches:
    """D prompts with K responses each, laid out for one forward pass. See `build_branches`.

    Attributes:
        input_ids: `[R, T]` token ids.
        position_ids: `[R, T]` positions as each `prompt + response` alone would have them.
        doc_ids: `[R, T]` which document a token belongs to, -1 for padding.
        branch_ids: `[R, T]` 0 for prompt tokens, 1..K for the branches, -1 for padding.
        predictors: `[N]` flat position (row * T + column) whose hidden state predicts response token n.
        targets: `[N]` the response tokens themselves.
        token_branch: `[N]` flat branch (document * K + k) of response token n.
        last: `[D, K]` flat position of each branch's last token.
        separate: Whether every row holds just one `prompt + response`, so that an ordinary causal mask is right.
    """

    input_ids: Tensor
    position_ids: Tensor
    doc_ids: Tensor
    branch_ids: Tensor
    predictors: Tensor
    targets: Tensor
    token_branch: Tensor
    last: Tensor
    separate: bool = False

    @property
    def num_documents(self) -> int:
        """D."""
        return self.last.shape[0]

    @property
    def num_branches(self) -> int:
        """K."""
        return self.last.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name: what a collator returns and `Branches(**tensors)` takes back."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "separate"}

    def to(self, device: torch.device) -> Branches:
        """The same batch on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def attention_mask(self) -> Tensor:
        """Who sees whom: bool `[R, 1, T, T]` (True = attend), or `[R, T]` of 0/1 in the separate layout."""
        if self.separate:
            return (self.doc_ids >= 0).long()
        doc, branch = self.doc_ids, self.branch_ids
        same_doc = doc[:, :, None] == doc[:, None, :]
        own_or_prompt = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
        causal = torch.ones(doc.shape[1], doc.shape[1], dtype=torch.bool, device=doc.device).tril()
        return (same_doc & own_or_prompt & causal)[:, None]

    def sum_by_branch(self, per_token: Tensor) -> Tensor:
        """Sum `[N]` values over each response: `[D, K]`."""
        zeros = per_token.new_zeros(self.last.numel())
        return zeros.index_add(0, self.token_branch, per_token).view(self.last.shape)

    def lengths(self) -> Tensor:
        """Response tokens of each branch: `[D, K]`, integer."""
        return torch.bincount(self.token_branch, minlength=self.last.numel()).view(self.last.shape)

    def longest(self) -> int:
        """Length of the longest `prompt + response`, in tokens."""
        return int(self.position_ids.max()) + 1

    def documents(self, count: int) -> list[Document]:
        """The token ids of the first `count` documents, as `build_branches` takes them."""
        ids, doc, branch = (x.flatten() for x in (self.input_ids, self.doc_ids, self.branch_ids))

        def part(number: int, k: int) -> list[int]:
            return ids[(doc == number) & (branch == k)].tolist()

        return [
            (part(number, 0), [part(number, k + 1) for k in range(self.num_branches)])
            for number in range(min(count, self.num_documents))
        ]

    def members(self) -> tuple[Tensor, Tensor]:
        """The flat positions that make up each `prompt + response`, in reading order.

        Returns:
            Positions `[D * K, L]` and a bool mask `[D * K, L]`, False behind a sequence's end.
        """
        doc, branch = self.doc_ids.flatten(), self.branch_ids.flatten()
        rows = torch.arange(self.last.numel(), device=doc.device)
        if self.separate:
            return torch.arange(doc.numel(), device=doc.device).view(self.doc_ids.shape), self.doc_ids >= 0
        of_doc = doc[None] == (rows // self.num_branches)[:, None]
        member = of_doc & ((branch == 0)[None] | (branch[None] == (rows % self.num_branches + 1)[:, None]))
        lengths = member.sum(1)
        # A stable sort brings each sequence's members to the front in reading order: the prompt, then its branch.
        order = torch.argsort((~member).to(torch.uint8), dim=1, stable=True)[:, : int(lengths.max())]
        return order, torch.arange(order.shape[1], device=doc.device)[None] < lengths[:, None]

    def as_separate(self) -> Branches:
        """The same documents with one `prompt + response` a row, right-padded: `D * K` rows.

        For models that don't honour a branch mask (state-space layers, flash kernels, sliding windows shorter than
        the row). Tokens, targets and their order stay the same, so results compare one to one.
        """
        order, real = self.members()
        width = order.shape[1]
        rows = torch.arange(len(order), device=order.device)
        lengths = real.sum(1)
        prompt_lengths = (real & (self.branch_ids.flatten()[order] == 0)).sum(1)
        response = real & (torch.arange(width, device=order.device)[None] >= prompt_lengths[:, None])
        row_of, column_of = response.nonzero(as_tuple=True)

        def pick(x: Tensor, padding: int) -> Tensor:
            return x.flatten()[order].masked_fill(~real, padding)

        return Branches(
            input_ids=self.input_ids.flatten()[order],
            position_ids=pick(self.position_ids, 0),
            doc_ids=pick(self.doc_ids, -1),
            branch_ids=pick(self.branch_ids, -1),
            predictors=row_of * width + column_of - 1,
            targets=self.targets,
            token_branch=self.token_branch,
            last=(rows * width + lengths - 1).view(self.last.shape),
            separate=True,
        )


def build_branches(documents: Sequence[Document], *, pad_token_id: int, row_tokens: int | None = None) -> Branches:
    """Lay out prompts and their responses for one forward pass.

    Args:
        documents: D pairs of a prompt's token ids and its K responses' token ids; the same K for all, nothing empty.
        pad_token_id: Fills the rows' ends. It may equal EOS: padding is known by position, never by this id.
        row_tokens: Pack documents into rows of this many tokens (or of the longest document, if that is longer).
            Default: one document a row.

    Raises:
        ValueError: If a prompt or response is empty, or the documents differ in their number of responses.
    """
    num_branches = len(documents[0][1])
    for number, (prompt, responses) in enumerate(documents):
        if not prompt or not all(responses) or len(responses) != num_branches:
            raise ValueError(f"Document {number} needs a non-empty prompt and {num_branches} non-empty responses.")
    sizes = [len(prompt) + sum(map(len, responses)) for prompt, responses in documents]
    rows = (
        pack_rows(sizes, max(max(sizes), row_tokens)) if row_tokens else [[number] for number in range(len(documents))]
    )
    width = max(sum(sizes[number] for number in row) for row in rows)

    shape = (len(rows), width)
    input_ids = torch.full(shape, pad_token_id)
    position_ids, doc_ids, branch_ids = (
        torch.zeros(shape, dtype=torch.long),
        torch.full(shape, -1),
        torch.full(shape, -1),
    )
    predictors: list[list[Tensor]] = [[] for _ in documents]
    last = torch.zeros(len(documents), num_branches, dtype=torch.long)
    for row, numbers in enumerate(rows):
        start = 0
        for number in numbers:
            prompt, responses = documents[number]
            prompt_end = row * width + start + len(prompt) - 1
            for branch, ids in enumerate([prompt, *responses]):
                span = slice(start, start + len(ids))
                offset = len(prompt) if branch else 0
                input_ids[row, span] = torch.as_tensor(ids)
                position_ids[row, span] = torch.arange(offset, offset + len(ids))
                doc_ids[row, span], branch_ids[row, span] = number, branch
                flat = row * width + start
                start += len(ids)
                if branch:  # the prompt's end predicts a branch's first token, then each token the next
                    predictors[number].append(torch.tensor([prompt_end, *range(flat, flat + len(ids) - 1)]))
                    last[number, branch - 1] = flat + len(ids) - 1
    lengths = torch.tensor([len(ids) for _, responses in documents for ids in responses])
    return Branches(
        input_ids=input_ids,
        position_ids=position_ids,
        doc_ids=doc_ids,
        branch_ids=branch_ids,
        predictors=torch.cat([part for parts in predictors for part in parts]),
        targets=torch.cat([torch.as_tensor(ids) for _, responses in documents for ids in responses]),
        token_branch=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
        last=last,
    )


def pack_rows(sizes: list[int], capacity: int) -> list[list[int]]:
    """Document numbers by row: as few rows as first-fit decreasing needs for `capacity` tokens, filled evenly.

    All rows are as long as the fullest one, so uneven rows would be mostly padding.
    """
    longest_first = sorted(range(len(sizes)), key=lambda n: -sizes[n])
    rows: list[list[int]] = []
    free: list[int] = []
    for number in longest_first:
        row = next((r for r, space in enumerate(free) if space >= sizes[number]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            free.append(capacity)
        rows[row].append(number)
        free[row] -= sizes[number]
    even: list[list[int]] = [[] for _ in rows]
    filled = [0] * len(rows)
    for number in longest_first:
        row = filled.index(min(filled))
        even[row].append(number)
        filled[row] += sizes[number]
    return even if max(filled) < capacity - min(free) else rows
