"""The rewards that a policy was trained on, recorded so that an evaluation can tell that its judge is one of them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def rewards_of(trainer: Any) -> dict[str, list[str]]:
    """Names of the rewards of a trainer that has any, with `head_keys` of each."""
    parts = getattr(getattr(trainer, "reward", None), "members", None) or ()
    return {part.name: head_keys(part.source) for part in parts}


def describe_rewards(trainer: Any) -> list[str]:
    """The rewards of a trainer in words: names, and of an ensemble its members and how their scores become one."""
    described = []
    for part in getattr(getattr(trainer, "reward", None), "members", None) or ():
        method, members = getattr(part.source, "method", None), getattr(part.source, "members", None)
        if averages := getattr(part.source, "averages", 0):
            described.append(f"{part.name} (the weight average of {averages} reward models)")
        elif isinstance(method, str) and members is not None:
            described.append(
                f"{part.name} (an ensemble of {len(members)} reward models, by {method.replace('_', ' ')})"
            )
        else:
            described.append(part.name)
    return described


def head_keys(source: Any) -> list[str]:
    """Keys of a reward model's head, or of those of an ensemble's members; none for other rewards.

    A model has the same key as an adapter and merged, and in bfloat16.
    """
    heads = [getattr(each, "head", None) for each in getattr(source, "members", None) or [source]]
    return [_key(head) for head in heads if isinstance(head, torch.nn.Module)]


def _key(head: torch.nn.Module) -> str:
    sha = hashlib.sha256()
    for name, weight in sorted(head.state_dict().items()):
        if "original_module" not in name:  # peft keeps the untrained head beside the trained one
            numbers = weight.detach().cpu().to(torch.bfloat16).contiguous().view(torch.uint8)
            sha.update(f"{tuple(weight.shape)}".encode() + numbers.numpy().tobytes())
    return sha.hexdigest()[:16]
