"""Attention for branch batches on a CPU: each document separately, each response over the prompt and itself.

Under a dense `[T, T]` mask torch's kernels compute every pair of tokens of a row and throw most of them away: pairs of
different documents in a packed row, pairs of different responses within a document. Here only non-empty blocks are
computed, as batched matrix products: the prompts over themselves, and each response over its prompt and itself. Query
heads that share a key head share a product instead of copying the keys.

Only queries, keys and values are kept for the backward pass, which recomputes the probabilities. Scores and softmax are
float32 whatever the inputs' dtype, as in torch's own kernels.

The layout travels with the mask: `attach_plan` makes it an attribute of the `[R, 1, T, T]` tensor that every layer
gets, where the function registered as "sdpa" looks for it. Any other mask goes to transformers' own function, and
models whose attention doesn't use the registry read the dense mask as before.

Notation: a block has D documents, padded to P prompt tokens and K responses of L tokens; KV key heads, G query heads
per key head.

    attach_plan                        once per batch: attaches the layout to the mask
        make_plan                      groups documents of similar length in blocks (attention_plan)
    branch_attention_forward           every layer
        _BranchAttention               queries, keys and values of all tokens; forward and backward over
            _Work.parts                inputs of each part, for _probabilities and _gradients
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_align.acceleration.attention_plan import BranchPlan
from hf_align.acceleration.decoding import decodes_one_token, one_token_attention
from hf_align.acceleration.shared import Shared, Undo, both

PLAN = "branch_plan"
"""Attribute of the mask that holds its plan."""
UNSUPPORTED = ("softcap", "position_bias", "s_aux", "output_attentions", "cache")
"""Arguments of transformers' attention functions that make scores more than scaled products."""


_ENTRY, _BY_BLOCKS, _DECODING = Shared(), Shared(), Shared()


def attend_by_blocks(model: nn.Module) -> Undo:
    """Let `model` attend by blocks in batches whose mask has a plan."""
    return _let(model, _BY_BLOCKS)


def attends_by_blocks(model: nn.Module) -> bool:
    """Whether `attend_by_blocks` is on for `model` or for a model that contains it."""
    return model in _BY_BLOCKS


def decode_by_products(model: nn.Module) -> Undo:
    """Let attention layers of `model` use `one_token_attention` for decoding."""
    return _let(model, _DECODING)


def entry_is_free() -> bool:
    """Whether "sdpa" in transformers' registry is its own function or ours."""
    return ALL_ATTENTION_FUNCTIONS["sdpa"] in (sdpa_attention_forward, branch_attention_forward)


def _let(model: nn.Module, use: Shared) -> Undo:
    """Register our function, and note the layers it serves; for others it acts as transformers' function."""
    return both(_ENTRY.join(["sdpa"], _register), use.join(model.modules(), lambda layer: lambda: None))


def _register(name: str) -> Undo:
    if ALL_ATTENTION_FUNCTIONS[name] is not sdpa_attention_forward:  # another library's
        return lambda: None
    ALL_ATTENTION_FUNCTIONS.register(name, branch_attention_forward)

    def undo() -> None:
        if ALL_ATTENTION_FUNCTIONS[name] is branch_attention_forward:
            ALL_ATTENTION_FUNCTIONS.register(name, sdpa_attention_forward)

    return undo


def attach_plan(mask: Tensor, plan: BranchPlan) -> Tensor:
    """Attach the plan for attention by blocks to `mask`, the dense mask of a batch on a CPU; return it."""
    setattr(mask, PLAN, plan)
    return mask


def branch_attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention as `sdpa_attention_forward` does: by blocks if the mask has a plan, by `one_token_attention`
    for decoding, otherwise by that function.

    Args:
        module: The attention layer.
        query: `[R, H, T, d]`.
        key: `[R, KV, T, d]`.
        value: `[R, KV, T, dv]`.
        attention_mask: As passed to the model.
        dropout: Dropout of the probabilities; with any, attention isn't computed by blocks.
        scaling: Factor on the scores. Default: 1 / sqrt(d).
        kwargs: Further arguments from the model.

    Returns:
        `[R, T, H, dv]`, and None for the probabilities.
    """
    plan: BranchPlan | None = getattr(attention_mask, PLAN, None)
    decodes = plan is None and decodes_one_token(query, attention_mask) and module in _DECODING
    if not (plan or decodes) or dropout or any(kwargs.get(name) is not None for name in UNSUPPORTED):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if plan is None:
        return one_token_attention(query, key, value, attention_mask, scale), None
    out = _BranchAttention.apply(*(x.transpose(1, 2).flatten(0, 1) for x in (query, key, value)), scale, plan)
    return out.view(query.shape[0], query.shape[2], *out.shape[1:]), None


# ---- the products ----


class _BranchAttention(torch.autograd.Function):
    """(query `[tokens, H, d]`, key `[tokens, KV, d]`, value `[tokens, KV, dv]`) -> `[tokens, H, dv]`."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, plan: BranchPlan) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.scale, ctx.plan = scale, plan
        work = _Work(query, key, value, scale, plan)
        results = [
            _probabilities(q, k, mask).to(v.dtype) @ v
            for number in range(len(plan.blocks))
            for _, _, q, k, v, mask in work.parts(number)
        ]
        return work.of_queries.restore(results).view(*query.shape[:2], value.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value = ctx.saved_tensors
        work = _Work(query, key, value, ctx.scale, ctx.plan)
        grad_out = grad_outputs[0].to(value.dtype).reshape(-1, value.shape[-1])  # [tokens * H, dv]
        of_query, of_key, of_value = [], [], []
        for number in range(len(ctx.plan.blocks)):
            shapes = [rows.shape for rows in work.keys(number)]
            keys, values = ([x.new_zeros(*shape, x.shape[-1]) for shape in shapes] for x in (work.key, work.value))
            for index, side, q, k, v, mask in work.parts(number):
                grad = _take(grad_out, work.of_queries.parts[number][index])  # [..., KV, G * part, dv]
                fake = work.of_queries.fake[number][index]
                grad = grad if fake is None else grad.masked_fill_(fake, 0)
                with torch.autocast(q.device.type, enabled=False):  # backward may be called inside it
                    grad_query, grad_key, grad_value = _gradients(q, k, v, mask, grad)
                of_query.append(grad_query)
                keys[side][..., : grad_key.shape[-2], :] += grad_key
                values[side][..., : grad_value.shape[-2], :] += grad_value
            of_key += _to_owners(*keys)
            of_value += _to_owners(*values)
        grad_query = work.of_queries.restore(of_query).mul_(ctx.scale)
        grad_key, grad_value = work.of_keys.restore(of_key), work.of_keys.restore(of_value)
        return grad_query.view_as(query), grad_key.view_as(key), grad_value.view_as(value), None, None


class _Work:
    """A batch's queries, keys and values, block by block."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, scale: float, plan: BranchPlan):
        key_heads = key.shape[1]
        self.of_queries = plan.queries(key_heads, query.shape[1] // key_heads)
        self.of_keys = plan.keys(key_heads)
        self.query, self.key, self.value = (x.reshape(-1, x.shape[-1]) for x in (query, key, value))
        self.scale, self.blocks = scale, plan.blocks

    def keys(self, number: int) -> tuple[Tensor, Tensor]:
        """Rows of the keys seen by a block's prompts, `[D, KV, P]`, and by its responses, `[D, K, KV, P + L]`."""
        prompt, branch = self.of_keys.parts[number]
        return prompt, torch.cat([prompt[:, None].expand(-1, branch.shape[1], -1, -1), branch], dim=-1)

    def parts(self, number: int) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor, Tensor]]:
        """A block's parts: index, 0 for prompts or 1 for responses, scaled queries, keys, values and mask.

        Queries are `[D, KV, G * part, d]` float32 for prompts, `[D, K, KV, G * part, d]` for responses; keys and values
        likewise with N keys in place of `G * part`.
        """
        index = 0
        for side, rows in enumerate(self.keys(number)):
            key, value = _take(self.key, rows), _take(self.value, rows)
            for part in self.blocks[number].parts[side]:
                query = _take(self.query, self.of_queries.parts[number][index])
                query = (query if query.dtype == torch.float32 else query.float()).mul_(self.scale)
                count = part.mask.shape[-1]
                mask = part.mask.view(len(part.mask), *[1] * (side + 2), *part.mask.shape[1:])  # [..., part, N]
                yield index, side, query, key[..., :count, :], value[..., :count, :], mask
                index += 1


def _to_owners(prompt: Tensor, branch: Tensor) -> list[Tensor]:
    """Gradients of the prompts' keys, plus those from the responses `[D, K, KV, P + L, d]`, and of the responses'."""
    width = prompt.shape[-2]
    return [prompt + branch[..., :width, :].sum(1), branch[..., width:, :]]


def _take(x: Tensor, rows: Tensor) -> Tensor:
    return x.index_select(0, rows.flatten()).view(*rows.shape, x.shape[-1])


def _probabilities(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """`[..., G * L, N]` float32: scaled queries `[..., G * L, d]` over keys `[..., N, d]` under `[..., 1, L, N]`."""
    scores = query @ key.float().transpose(-1, -2)  # [..., G * L, N]
    scores.unflatten(-2, (-1, mask.shape[-2])).add_(mask)  # a view per head
    return scores.softmax(-1)


def _gradients(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for the scaled queries, keys and values; the first is not scaled yet."""
    probabilities = _probabilities(query, key, mask)
    grad_value = probabilities.to(value.dtype).transpose(-1, -2) @ grad
    grad_probs = (grad @ value.transpose(-1, -2)).float()
    grad_scores = torch.ops.aten._softmax_backward_data.default(grad_probs, probabilities, -1, torch.float32)
    grad_scores = grad_scores.to(key.dtype)
    return grad_scores @ key, grad_scores.transpose(-1, -2) @ query.to(key.dtype), grad_value
