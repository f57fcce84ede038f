"""A running mean and standard deviation, merged across processes and saved in checkpoints."""

import math
from typing import Any

from torch import Tensor

from hf_align.losses.inputs import prepare


class RunningMeanStd:
    """Mean and standard deviation of all numbers seen so far, in fp64 (Chan, Golub and LeVeque 1979).

    Statistics of several processes merge exactly: `merge` gives the statistics of one process that saw everything.

    Attributes:
        count: Numbers seen so far.
        mean: Their mean; 0 before the first.

    Example:
        >>> import torch
        >>> from hf_align.rl import RunningMeanStd
        >>> statistics = RunningMeanStd()
        >>> statistics.update(torch.tensor([1.0, 2.0, 3.0]))
        >>> statistics.mean, statistics.std
        (2.0, 1.0)
        >>> statistics.normalize(torch.tensor([4.0]))
        tensor([2.])
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0  # summed squared deviations from the mean

    @property
    def std(self) -> float:
        """Unbiased (n - 1) standard deviation; 1 before two different numbers, so that it can divide."""
        return math.sqrt(self._squares / (self.count - 1)) if self._squares > 0.0 else 1.0

    def update(self, x: Tensor) -> None:
        """Take in all numbers of a tensor of any shape.

        Raises:
            ValueError: One of them is NaN or infinite (it would never leave the statistics again).
        """
        if x.numel() == 0:
            return
        x = x.detach().double()
        if not x.isfinite().all():
            raise ValueError("Running statistics can't take in NaN or infinite numbers; check the rewards.")
        batch = RunningMeanStd()
        batch.count, batch.mean = x.numel(), x.mean().item()
        batch._squares = (x - batch.mean).square().sum().item()
        self.merge(batch)

    def merge(self, other: "RunningMeanStd") -> None:
        """Take in everything that another instance has seen."""
        count = self.count + other.count
        if count == 0:
            return
        shift = other.mean - self.mean
        self._squares += other._squares + shift**2 * (self.count * other.count / count)
        self.mean += shift * (other.count / count)
        self.count = count

    def normalize(self, x: Tensor) -> Tensor:
        """`(x - mean) / std` with the statistics so far, in x's shape, fp32 (fp64 if x is)."""
        (x,) = prepare(x=x)
        return (x - self.mean) / self.std

    def state_dict(self) -> dict[str, float]:
        """Everything seen so far, as plain numbers."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.count, self.mean, self._squares = int(state["count"]), float(state["mean"]), float(state["squares"])
