"""A running mean and standard deviation, merged across processes and saved in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_align.losses.inputs import prepare


class RunningMeanStd:
    """Mean and standard deviation of everything seen so far, in fp64 (Chan, Golub and LeVeque 1979).

    Statistics of several processes merge exactly: `merge` gives the statistics of one process that saw everything.

    Args:
        shape: Shape of one observation; each of its elements has its own statistics. Default: observations are numbers.

    Attributes:
        count: Observations seen so far.

    Example:
        >>> import torch
        >>> from hf_align.rl import RunningMeanStd
        >>> statistics = RunningMeanStd()
        >>> statistics.update(torch.tensor([1.0, 2.0, 3.0]))
        >>> statistics.mean, statistics.std
        (2.0, 1.0)
        >>> statistics.normalize(torch.tensor([4.0]))
        tensor([2.])
        >>> statistics.normalize(torch.tensor([4.0]), shift_mean=False)
        tensor([4.])
        >>> of_two = RunningMeanStd(shape=(2,))
        >>> of_two.update(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
        >>> of_two.mean.tolist()
        [2.0, 20.0]
    """

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self.shape = tuple(shape)
        self.count = 0
        self._mean = torch.zeros(self.shape, dtype=torch.float64)
        self._squares = torch.zeros(self.shape, dtype=torch.float64)  # summed squared deviations from the mean

    @property
    def mean(self) -> Any:
        """Mean, 0 before the first observation: a float with `shape=()`, else fp64 of that shape."""
        return self._mean.clone() if self.shape else self._mean.item()

    @property
    def std(self) -> Any:
        """Unbiased (n - 1) standard deviation, of the type of `mean`; 1 before two different numbers, to divide by."""
        variance = self._squares / max(self.count - 1, 1)
        std = torch.where(self._squares > 0.0, variance.sqrt(), torch.ones_like(variance))
        return std if self.shape else std.item()

    def update(self, x: Tensor) -> None:
        """Take in observations: `[..., *shape]`.

        Raises:
            ValueError: The last dimensions aren't `shape`, or a number is NaN or infinite (it would never leave the
                statistics again).
        """
        self._check_shape(x)
        observations = x.detach().cpu().double().reshape(-1, *self.shape)  # some GPUs have no fp64
        if not observations.isfinite().all():
            raise ValueError("Running statistics can't take in NaN or infinite numbers; check the rewards.")
        if len(observations) > 0:
            batch = RunningMeanStd(self.shape)
            batch.count, batch._mean = len(observations), observations.mean(0)
            batch._squares = (observations - batch._mean).square().sum(0)
            self.merge(batch)

    def merge(self, other: RunningMeanStd) -> None:
        """Take in everything that another instance has seen.

        Raises:
            ValueError: It is of observations of another shape.
        """
        if other.shape != self.shape:
            raise ValueError(f"Statistics of shape {other.shape} don't merge into those of shape {self.shape}.")
        count = self.count + other.count
        if count == 0:
            return
        shift = other._mean - self._mean
        self._squares = self._squares + other._squares + shift.square() * (self.count * other.count / count)
        self._mean = self._mean + shift * (other.count / count)
        self.count = count

    def normalize(self, x: Tensor, shift_mean: bool = True) -> Tensor:
        """`(x - mean) / std` with the statistics so far.

        Args:
            x: `[..., *shape]`.
            shift_mean: False only divides (for rewards, whose sign has a meaning).

        Returns:
            Same shape and device as x, fp32 (fp64 if x is).

        Raises:
            ValueError: x's last dimensions aren't `shape`.
        """
        self._check_shape(x)
        (x,) = prepare(x=x)
        mean, std = (values.to(x) if self.shape else values for values in (self.mean, self.std))
        return (x - mean) / std if shift_mean else x / std

    def state_dict(self) -> dict[str, Any]:
        """Everything seen so far and the shape, as plain numbers and lists."""
        mean, squares = self._mean.tolist(), self._squares.tolist()
        return {"shape": list(self.shape), "count": self.count, "mean": mean, "squares": squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state, in its shape (saved by older versions: of numbers)."""
        self.shape, self.count = tuple(state.get("shape", ())), int(state["count"])
        self._mean, self._squares = (
            torch.tensor(state[name], dtype=torch.float64).view(self.shape) for name in ("mean", "squares")
        )

    def _check_shape(self, x: Tensor) -> None:
        if len(self.shape) > x.dim() or x.shape[x.dim() - len(self.shape) :] != self.shape:
            raise ValueError(f"Observations have the shape {self.shape}, and the tensor is {list(x.shape)}.")
