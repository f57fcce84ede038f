"""Averages over rows, correct under accumulation and across processes."""

from __future__ import annotations

import torch
from accelerate.utils import gather_object
from torch import Tensor


class RowMetrics:
    """Averages over rows, correct under accumulation and across processes: stores sums and counts, not means.

    Values stay on their device and are moved to the CPU together when the metrics are read: one transfer, so one
    synchronisation, for any number of batches and metrics. They are summed there in float64, which some GPUs lack.

    A metric named `min_*` or `max_*` is the smallest or largest row instead of the mean. One given as sums and counts
    is the sum of the sums divided by that of the counts, for rows of which some count more often or not at all.

    Args:
        most_waiting: Maximum number of waiting values; 4 MB by default.

    Example:
        >>> import torch
        >>> from hf_align.trainers.metrics import RowMetrics
        >>> metrics = RowMetrics()
        >>> metrics.add({"length": torch.tensor([1.0, 2.0])})
        >>> metrics.add({"length": torch.tensor([6.0])})
        >>> metrics.pop()
        {'length': 3.0}
        >>> metrics.add({"error": torch.tensor([[3.0, 2.0], [0.0, 0.0]])})  # of two labels, and of none
        >>> metrics.pop()
        {'error': 1.5}
    """

    def __init__(self, most_waiting: int = 1 << 20) -> None:
        self._most_waiting = most_waiting
        self._waiting: list[tuple[str, Tensor]] = []  # `[B]` or `[B, 2]`, not on the CPU yet
        self._values = 0  # of them
        self._step: int | None = None  # where in what waits the running step begins, if one was begun
        self._sums: dict[
            str, tuple[float, float]
        ] = {}  # with their counts; of extremes: the smallest, of `max_*` negated

    def add(self, rows: dict[str, Tensor]) -> None:
        """Add a batch: values `[B]` by name, or sums and counts `[B, 2]`; B may be 0."""
        for name, values in rows.items():
            self._waiting.append((name, values.detach()))
            self._values += values.numel()
        if self._step is None and self._values > self._most_waiting:
            self._fetch()

    def begin_step(self) -> None:
        """Begin a step whose rows `drop_step` can take back; they wait until the next begins."""
        if self._values > self._most_waiting:
            self._fetch()
        self._step = len(self._waiting)

    def drop_step(self) -> None:
        """Forget all batches since `begin_step`."""
        for _, values in self._waiting[self._step :]:
            self._values -= values.numel()
        del self._waiting[self._step :]

    def pop(self) -> dict[str, float]:
        """Compute the metrics over all processes, and reset. Every process must call it.

        A metric that nothing counted for is left out.
        """
        self._fetch()
        sums, self._sums = self._sums, {}
        everyone: list[dict[str, tuple[float, float]]] = gather_object([sums])  # as objects: float64 stays float64
        result = {}
        for name in sorted(sums):
            values, counts = zip(*(theirs[name] for theirs in everyone), strict=True)
            if name.startswith(("min_", "max_")):
                result[name] = min(values) * (1 if name.startswith("min_") else -1)
            elif sum(counts):
                result[name] = sum(values) / sum(counts)
        return result

    def _fetch(self) -> None:
        """Move waiting values to the CPU, in one transfer per device, and sum them batch by batch."""
        waiting, self._waiting, self._values, self._step = self._waiting, [], 0, None
        for device in {values.device for _, values in waiting}:
            rows = [(name, values) for name, values in waiting if values.device == device]
            everything = torch.cat([values.flatten() for _, values in rows]).cpu().double()
            parts = everything.split([values.numel() for _, values in rows])
            for (name, values), part in zip(rows, parts, strict=True):
                self._take(name, part.view(values.shape))

    def _take(self, name: str, values: Tensor) -> None:
        count: float = len(values)
        if values.ndim == 2:
            total, count = map(float, values.sum(0))
        elif name.startswith(("min_", "max_")):
            smallest = values if name.startswith("min_") else -values
            total = float(smallest.min()) if count else float("inf")
        else:
            total = float(values.sum())
        if name in self._sums:
            earlier, rows = self._sums[name]
            total = min(earlier, total) if name.startswith(("min_", "max_")) else earlier + total
            count += rows
        self._sums[name] = total, count
