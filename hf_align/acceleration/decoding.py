"""Attention of one new token per row on a CPU, as in decoding.

torch's CPU kernel is made for long rows: with one query per head in bfloat16 it takes five times as long as these two
products. Query heads that share a key head share the products, which are float32 under autocast, too: in bfloat16
oneDNN compiles code for each number of keys, so for each token, and keeps it (1.1 MB for both, on an AMD EPYC).
"""

from __future__ import annotations

import torch
from torch import Tensor


def decodes_one_token(query: Tensor, mask: Tensor | None) -> bool:
    """Whether queries `[B, H, T, d]` hold one new token per row, and no gradients are needed.

    Args:
        query: The queries.
        mask: `[B, 1, 1, N]` over the keys, bool (True = attend) or added to the scores. None: all keys are seen.
    """
    one = query.shape[2] == 1 and query.device.type == "cpu"
    return one and not torch.is_grad_enabled() and (mask is None or mask.shape[1:3] == (1, 1))


def one_token_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(scale * q k' + mask) v: `[B, H, 1, d]`, `[B, KV, N, d]`, `[B, KV, N, dv]` -> `[B, 1, H, dv]`."""
    rows, heads, _, size = query.shape
    with torch.autocast("cpu", enabled=False):
        scores = (query.reshape(rows, key.shape[1], -1, size).float() @ key.float().transpose(-1, -2)).mul_(scale)
        if mask is not None and mask.dtype == torch.bool:
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores += mask
        return (scores.softmax(-1) @ value.float()).to(value.dtype).view(rows, 1, heads, value.shape[-1])
