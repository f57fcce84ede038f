"""Batches in which a prompt is encoded once and every response is a branch of it.

```
prompt p p p p | chosen c c c | rejected r r r r        position: 0 1 2 3 | 4 5 6 | 4 5 6 7
```

A token sees its own prompt and the earlier tokens of its own branch, never another branch; the positions of every
branch restart where the prompt ends. The log-probabilities, rewards and gradients are therefore those of separate
sequences `prompt + response`, at the cost of one prompt instead of K. Several documents (a prompt with its branches)
can share a row; `doc_ids` keeps them apart.

Notation: R rows, T tokens a row, D documents (prompts), each with its own number K of responses, S responses in all and
N response tokens in all, counted document by document and response by response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

Document = tuple[Sequence[int], Sequence[Sequence[int]]]
"""A prompt's token ids and those of its K responses."""


@dataclass(frozen=True)
class Branches:
    """D prompts with any number of responses each, laid out for one forward pass. See `build_branches`.

    It travels whole: through `DataLoader` workers and pinned memory, to a device, into a model's `forward`.

    Attributes:
        input_ids: `[R, T]` token ids.
        position_ids: `[R, T]` positions, as in each `prompt + response` on its own.
        doc_ids: `[R, T]` document of each token, -1 for padding.
        branch_ids: `[R, T]` 0 for prompt tokens, 1..K for the branches, -1 for padding.
        predictors: `[N]` flat position (row * T + column) whose hidden state predicts response token n.
        targets: `[N]` the response tokens themselves.
        token_branch: `[N]` index of the response (of S) that token n belongs to.
        last: `[S]` flat position of each response's last token.
        num_responses: K of each document; Python ints, so that reading them never waits for a device.
        longest: Tokens of the longest `prompt + response`; a Python int, too.
        separate: Whether every row holds exactly one `prompt + response`, so that an ordinary causal mask is right.

    Example:
        >>> from hf_align.layout import build_branches
        >>> branches = build_branches([([5, 6], [[7, 2], [8, 9, 2]])], pad_token_id=0)
        >>> branches.position_ids  # both responses follow the prompt
        tensor([[0, 1, 2, 3, 2, 3, 4]])
        >>> branches.num_responses, branches.targets
        ((2,), tensor([7, 2, 8, 9, 2]))
    """

    input_ids: Tensor
    position_ids: Tensor
    doc_ids: Tensor
    branch_ids: Tensor
    predictors: Tensor
    targets: Tensor
    token_branch: Tensor
    last: Tensor
    num_responses: tuple[int, ...]
    longest: int
    separate: bool = False

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.num_responses)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Branches:
        """The same batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Branches:
        """The same batch in page-locked memory, from which copies to a GPU are fast."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Branches:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})

    def attention_mask(self) -> Tensor:
        """Mask of attention: bool `[R, 1, T, T]` (True = attend), or `[R, T]` of 0/1 in the separate layout."""
        if self.separate:
            return (self.doc_ids >= 0).long()
        doc, branch = self.doc_ids, self.branch_ids
        same_doc = doc[:, :, None] == doc[:, None, :]
        same_branch_or_prompt = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
        causal = torch.ones(doc.shape[1], doc.shape[1], dtype=torch.bool, device=doc.device).tril()
        return (same_doc & same_branch_or_prompt & causal)[:, None]

    def sum_by_branch(self, per_token: Tensor) -> Tensor:
        """Sum `[N]` values over each response: `[S]`."""
        return per_token.new_zeros(len(self.last)).index_add(0, self.token_branch, per_token)

    def lengths(self) -> Tensor:
        """Tokens of each response: `[S]`, integer."""
        return torch.bincount(self.token_branch, minlength=len(self.last))

    def tokens_so_far(self) -> Tensor:
        """Tokens of its response up to each response token, itself included: `[N]`, integer."""
        lengths = self.lengths()
        before = (lengths.cumsum(0) - lengths)[self.token_branch]
        return torch.arange(1, len(before) + 1, device=before.device) - before

    def response_positions(self) -> Tensor:
        """Flat positions of the response tokens: `[N]`, in the order of `targets`."""
        lengths = self.lengths()
        start = self.last - lengths + 1 - (lengths.cumsum(0) - lengths)  # [S] position of a token less its number n
        return start[self.token_branch] + torch.arange(len(self.targets), device=start.device)

    def documents(self, count: int) -> list[Document]:
        """The token ids of the first `count` documents, as `build_branches` takes them."""
        ids, doc, branch = (x.flatten() for x in (self.input_ids, self.doc_ids, self.branch_ids))

        def part(number: int, k: int) -> list[int]:
            return ids[(doc == number) & (branch == k)].tolist()

        return [
            (part(number, 0), [part(number, k + 1) for k in range(num_responses)])
            for number, num_responses in enumerate(self.num_responses[:count])
        ]

    def members(self) -> tuple[Tensor, Tensor]:
        """The flat positions that make up each `prompt + response`, in reading order.

        Returns:
            Positions `[S, L]` and a bool mask `[S, L]`, False after a sequence's end.
        """
        doc, branch = self.doc_ids.flatten(), self.branch_ids.flatten()  # [R * T]
        if self.separate:
            return torch.arange(doc.numel(), device=doc.device).view(self.doc_ids.shape), self.doc_ids >= 0
        of_doc = doc[None] == doc[self.last][:, None]  # [S, R * T]
        member = of_doc & ((branch == 0)[None] | (branch[None] == branch[self.last][:, None]))
        lengths = member.sum(1)
        # A stable sort brings each sequence's members to the front in reading order: the prompt, then its branch.
        order = torch.argsort((~member).to(torch.uint8), dim=1, stable=True)[:, : int(lengths.max())]
        return order, torch.arange(order.shape[1], device=doc.device)[None] < lengths[:, None]

    def as_separate(self) -> Branches:
        """The same documents with one `prompt + response` a row, right-padded: S rows.

        For models that don't honour a branch mask (state-space layers, flash kernels, sliding windows shorter than
        the row). Targets and their order stay the same, so results compare one to one.
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
            last=rows * width + lengths - 1,
            num_responses=self.num_responses,
            longest=self.longest,
            separate=True,
        )


def build_branches(documents: Sequence[Document], *, pad_token_id: int, row_tokens: int | None = None) -> Branches:
    """Lay out prompts and their responses for one forward pass.

    Args:
        documents: D pairs of a prompt's token ids and its K responses' token ids; K may differ, nothing may be empty.
        pad_token_id: Fills the rows' ends. It may equal EOS: padding is identified by position, never by this id.
        row_tokens: Pack documents into rows of this many tokens (or of the longest document, if that is longer).
            Default: one document a row.

    Raises:
        ValueError: If a prompt or response is empty, or a prompt has no response.
    """
    for number, (prompt, responses) in enumerate(documents):
        if not prompt or not responses or not all(responses):
            raise ValueError(f"Document {number} needs a prompt and at least one response, none of them empty.")
    sizes = [len(prompt) + sum(map(len, responses)) for prompt, responses in documents]
    rows = pack_rows(sizes, max(max(sizes), row_tokens)) if row_tokens else [[number] for number in range(len(sizes))]
    width = max(sum(sizes[number] for number in row) for row in rows)
    doc_start = [0] * len(documents)  # flat positions
    for row, numbers in enumerate(rows):
        position = row * width
        for number in numbers:
            doc_start[number] = position
            position += sizes[number]

    # Parts are each document's prompt followed by its responses: P = D + S of them.
    parts = [ids for prompt, responses in documents for ids in (prompt, *responses)]
    num_parts = torch.tensor([1 + len(responses) for _, responses in documents])  # [D]
    doc = torch.repeat_interleave(num_parts)  # [P]
    first = (num_parts.cumsum(0) - num_parts)[doc]  # [P] index of its document's prompt
    branch = torch.arange(len(parts)) - first  # [P] 0 for the prompt, then 1..K
    lengths = torch.tensor([len(ids) for ids in parts])  # [P]
    before = lengths.cumsum(0) - lengths  # [P] tokens in earlier parts
    start = torch.tensor(doc_start)[doc] + before - before[first]  # [P] flat position
    last = start + lengths - 1  # [P] flat position

    tokens = torch.tensor([token for ids in parts for token in ids])  # [tokens]
    part = torch.repeat_interleave(lengths)  # [tokens]
    offset = torch.arange(len(tokens)) - before[part]  # [tokens] within the part
    flat = start[part] + offset  # [tokens]
    in_response = branch[part] > 0  # [tokens]
    # The prompt's last token predicts a response's first token, then each token predicts the next.
    predictors = torch.where(offset == 0, last[first][part], flat - 1)

    def lay_out(values: Tensor, padding: int) -> Tensor:  # [tokens] -> [R, T]
        return torch.full((len(rows) * width,), padding).index_copy(0, flat, values).view(len(rows), width)

    return Branches(
        input_ids=lay_out(tokens, pad_token_id),
        position_ids=lay_out(offset + (lengths[first] * (branch > 0))[part], 0),
        doc_ids=lay_out(doc[part], -1),
        branch_ids=lay_out(branch[part], -1),
        predictors=predictors[in_response],
        targets=tokens[in_response],
        token_branch=(part - doc[part] - 1)[in_response],  # earlier parts, prompts not counted
        last=last[branch > 0],
        num_responses=tuple(len(responses) for _, responses in documents),
        longest=max(map(row_length, documents)),
    )


def row_length(document: Document) -> int:
    """Tokens of the longest `prompt + response` of a document."""
    prompt, responses = document
    return len(prompt) + max(map(len, responses))


def pack_rows(sizes: list[int], capacity: int) -> list[list[int]]:
    """Document indices of each row: as few rows as first-fit decreasing needs for `capacity` tokens, filled evenly.

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
