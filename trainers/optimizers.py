"""Memory of optimizers by the names that `optim` takes: their state, and what a step takes besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

BLOCK = 256
"""Weights of an 8-bit state that share a float32 scale."""
TWO_MOMENTS = ("adamw", "adam", "stable_adamw", "lamb")
ONE_MOMENT = ("sgd", "rmsprop", "adagrad", "lion")


@dataclass(frozen=True)
class Optimizer:
    """An optimizer's memory.

    Attributes:
        state: Bytes kept from step to step.
        step: Bytes of a step's intermediate results.
        note: What the figures leave out or assume; empty if nothing.
    """

    state: float
    step: float
    note: str = ""


def optimizer_memory(name: str, weights: Sequence[nn.Parameter], device: str, *, momentum: bool = False) -> Optimizer:
    """The memory of an optimizer of these float32 weights.

    Args:
        name: Value of `optim`.
        weights: The trained weights.
        device: Type of device: on a GPU the unfused optimizers of torch work on all weights at once.
        momentum: Whether SGD has one.
    """
    sizes = [weight.numel() for weight in weights]
    total, largest = sum(sizes), max(sizes, default=0)
    if name == "adafactor":  # of each matrix a row and a column; a step makes three of its size
        factored = sum(sum(weight.shape[-2:]) for weight in weights)
        return Optimizer(4.0 * factored, 12.0 * largest)
    family = name.removeprefix("paged_").split("_")[0]
    note = "may move to the host's memory" if name.startswith("paged_") else ""
    moments = 2 if name.startswith(TWO_MOMENTS) or family in TWO_MOMENTS else 1 if family in ONE_MOMENT else None
    if name == "ademamix" or family == "ademamix":
        moments = 3
    if name == "sgd":
        moments = int(momentum)
    if moments is None:
        moments, note = 2, f"{name} is counted as AdamW"
    if "8bit" in name:  # small tensors keep float32 states
        state = sum(moments * size * (4.0 if size < 4096 else 1 + 4 / BLOCK) for size in sizes)
        return Optimizer(state, 0.0, note)
    whole = name in ("adamw_torch", "rmsprop", "sgd", "adagrad", "nadam") and device == "cuda"
    own = "fused" in name or "bnb" in name or name.startswith("paged_") or family == "lion"
    return Optimizer(4.0 * moments * total, 4.0 * (total if whole else 0 if own else largest), note)
