"""Checks and conversions of a loss's inputs."""

import torch
from torch import Tensor

from hf_align.errors import UserError


def prepare(**tensors: Tensor) -> list[Tensor]:
    """The tensors in the order given, cast to fp32 (fp64 stays), after a check that all have one shape.

    Without the check a `[B, 1]` beside a `[B]` would broadcast to `[B, B]` and train on pairs that don't exist.

    Raises:
        ValueError: The shapes differ; the message lists them by name.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"These tensors must have the same shape: {shapes}.")
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors.values()]


def check_label_smoothing(label_smoothing: float) -> None:
    """Refuse a share of flipped labels at which labels carry no information, or the wrong one.

    Raises:
        UserError: Not in [0, 0.5).
    """
    if not 0.0 <= label_smoothing < 0.5:
        raise UserError(
            f"label_smoothing must be in [0, 0.5), got {label_smoothing}; at 0.5 labels carry no information."
        )
