"""One hidden state per response, or per response token, from those of all tokens of a batch.

The states are those of `prompt + response` alone, whatever the layout: padding on either side, other responses to the
prompt and other documents in the row never count. A prompt's part is computed once for all its responses.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hf_align.layout.branches import Branches


def pool(hidden: Tensor, branches: Branches, pooling: str, attention: nn.Module | None = None) -> Tensor:
    """One hidden state per response: `[R, T, d]` -> `[S, d]`.

    Args:
        hidden: The states.
        branches: The batch.
        pooling: "last", "first", "mean" or "max" token of prompt and response.
        attention: Scores a state, `[., d]` -> `[., 1]`: pool the response's tokens by the softmax of their scores
            instead.
    """
    flat = hidden.flatten(0, 1)  # [R * T, d]
    if attention is not None:
        states, of = flat[branches.response_positions()], branches.token_branch  # [N, d], [N]
        return _attended(states.to(_dtype(attention)), of, len(branches.last), attention)
    if pooling == "last":
        return flat[branches.last]
    parts = Parts(branches)
    if pooling == "first":
        return flat[parts.first()]
    if pooling == "mean":
        sums, counts = parts.reduce(flat, "sum"), parts.counts()
        return (sums[parts.prompt] + sums[parts.response]) / (counts[parts.prompt] + counts[parts.response])[:, None]
    largest = parts.reduce(flat, "amax")
    return torch.maximum(largest[parts.prompt], largest[parts.response])


def pool_response(hidden: Tensor, branches: Branches) -> Tensor:
    """Mean of each response's own tokens, without its prompt's: `[R, T, d]` -> `[S, d]` float32."""
    parts = Parts(branches)
    return parts.reduce(hidden.flatten(0, 1), "sum")[parts.response] / parts.counts()[parts.response][:, None]


def pool_prefixes(hidden: Tensor, branches: Branches, pooling: str, attention: nn.Module | None = None) -> Tensor:
    """What `pool` would give if each response ended at each of its tokens: `[R, T, d]` -> `[N, d]`.

    For decoders, whose states don't depend on later tokens. Memory grows with the square of the longest response for
    `attention`, which is for scoring.
    """
    flat = hidden.flatten(0, 1)
    positions, of = branches.response_positions(), branches.token_branch  # [N]
    if attention is None and pooling == "last":
        return flat[positions]
    parts = Parts(branches)
    if attention is None and pooling == "first":
        return flat[parts.first()][of]
    lengths = branches.lengths()  # [S]
    column = torch.arange(len(of), device=of.device) - (lengths.cumsum(0) - lengths)[of]  # [N] within the response
    shape = (len(lengths), int(lengths.max()))  # S, L
    states = flat[positions].to(torch.float32 if attention is None else _dtype(attention))
    padded = states.new_zeros(*shape, states.shape[1]).index_put((of, column), states)  # [S, L, d]
    if attention is not None:
        scores = states.new_zeros(shape).index_put((of, column), attention(states)[:, 0])
        later = torch.ones(shape[1], shape[1], dtype=torch.bool, device=of.device).triu(1)
        weights = scores[:, None].expand(-1, shape[1], -1).masked_fill(later, -torch.inf).softmax(-1)  # [S, L, L]
        return (weights @ padded)[of, column]
    if pooling == "mean":
        sums, counts = parts.reduce(flat, "sum")[parts.prompt], parts.counts()[parts.prompt]
        return (sums[of] + padded.cumsum(1)[of, column]) / (counts[of] + column + 1)[:, None]
    # Padding comes after a response's tokens, so it is in no prefix.
    return torch.maximum(parts.reduce(flat, "amax")[parts.prompt][of], padded.cummax(1).values[of, column])


class Parts:
    """A batch's tokens by the prompt or response to which they belong.

    Attributes:
        part: `[R * T]` part of each token; padding has the last one for itself.
        prompt: `[S]` part of each response's prompt.
        response: `[S]` part of each response.
        count: Number of parts.
    """

    def __init__(self, branches: Branches):
        doc, branch, last = branches.doc_ids.flatten(), branches.branch_ids.flatten(), branches.last
        if branches.separate:  # two parts a row
            rows, width = branches.doc_ids.shape
            part = torch.arange(rows, device=doc.device).repeat_interleave(width) * 2 + (branch > 0)
            self.prompt, self.count = last // width * 2, 2 * rows
            self.response = self.prompt + 1
        else:  # a document's prompt, then its responses
            responses = doc.new_zeros(branches.num_documents).index_add(0, doc[last], torch.ones_like(last))  # [D]
            start = responses.cumsum(0) - responses + torch.arange(len(responses), device=doc.device)
            part = start[doc] + branch  # wrong for padding
            self.prompt, self.count = start[doc[last]], len(responses) + len(last)
            self.response = self.prompt + branch[last]
        self.part = part.masked_fill(doc < 0, self.count)

    def reduce(self, flat: Tensor, how: Literal["sum", "amax"]) -> Tensor:
        """Sum or maximum of states `[R * T, d]` over each part's tokens: `[count + 1, d]` float32."""
        result = flat.new_full((self.count + 1, flat.shape[1]), 0 if how == "sum" else -torch.inf, dtype=torch.float32)
        return result.scatter_reduce(0, self.part[:, None].expand_as(flat), flat.float(), how)

    def counts(self) -> Tensor:
        """Tokens of each part: `[count + 1]`."""
        return self.part.new_zeros(self.count + 1).index_add(0, self.part, torch.ones_like(self.part))

    def first(self) -> Tensor:
        """Flat position of the first token of each response's prompt: `[S]`."""
        flat = torch.arange(len(self.part), device=self.part.device)
        size = torch.full((self.count + 1,), len(flat), device=flat.device)
        return size.scatter_reduce(0, self.part, flat, "amin")[self.prompt]


def _attended(states: Tensor, of: Tensor, count: int, attention: nn.Module) -> Tensor:
    """Mean of each response's token states `[N, d]`, weighted by a softmax of their scores: `[S, d]`."""
    scores = attention(states)[:, 0]  # [N]
    largest = scores.new_full((count,), -torch.inf).scatter_reduce(0, of, scores.detach(), "amax")
    weights = (scores - largest[of]).exp()
    weights = weights / weights.new_zeros(count).index_add(0, of, weights)[of]
    pooled = states.new_zeros(count, states.shape[1])
    return pooled.scatter_add(0, of[:, None].expand_as(states), states * weights[:, None])


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
