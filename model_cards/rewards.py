"""The rewards that a policy was trained on, recorded so that an evaluation can tell that its judge is one of them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def rewards_of(trainer: Any) -> dict[str, str | None]:
    """Names of the rewards of a trainer that has any, with `head_key` of each."""
    members = getattr(getattr(trainer, "reward", None), "members", None) or ()
    return {part.name: head_key(part.source) for part in members}


def head_key(source: Any) -> str | None:
    """A key of a reward model's head, the same for its adapter and for its merged weights; None for other rewards.

    Taken of bfloat16 numbers, since weights may be saved so.
    """
    head = getattr(source, "head", None)
    if not isinstance(head, torch.nn.Module):
        return None
    sha = hashlib.sha256()
    for name, weight in sorted(head.state_dict().items()):
        if "original_module" not in name:  # peft keeps the untrained head beside the trained one
            numbers = weight.detach().cpu().to(torch.bfloat16).contiguous().view(torch.uint8)
            sha.update(f"{tuple(weight.shape)}".encode() + numbers.numpy().tobytes())
    return sha.hexdigest()[:16]
