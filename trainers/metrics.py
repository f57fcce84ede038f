"""Averages over rows, correct under accumulation and across processes."""

from __future__ import annotations

import torch
from accelerate.utils import gather_object
from torch import Tensor


class RowMetrics:
    """Averages over rows, correct under accumulation and across processes: stores sums and counts, not means.

    Values stay on their device and are moved to the CPU together when the metrics are read: one transfer, so one
    synchronisation, for any number of batches and metrics. They are summed there in float64, which some GPUs lack.

    A metric named `min_*` or `max_*` is the smallest or largest row instead of the mean.

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
    """

    def __init__(self, most_waiting: int = 1 << 20) -> None:
        self._most_waiting = most_waiting
        self._waiting: list[tuple[str, Tensor]] = []  # not on the CPU yet
        self._values = 0  # of them
        self._step: int | None = None  # where in what waits the running step begins, if one was begun
        self._sums: dict[
            str, tuple[float, int]
        ] = {}  # with their counts; of extremes: the smallest, of `max_*` negated

    def add(self, rows: dict[str, Tensor]) -> None:
        """Add a batch: values `[B]` by name; B may be 0."""
        for name, values in rows.items():
            self._waiting.append((name, values.detach()))
            self._values += len(values)
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
            self._values -= len(values)
        del self._waiting[self._step :]

    def pop(self) -> dict[str, float]:
        """Compute the metrics over all processes, and reset. Every process must call it."""
        self._fetch()
        sums, self._sums = self._sums, {}
        everyone: list[dict[str, tuple[float, int]]] = gather_object([sums])  # as objects: float64 stays float64
        result = {}
        for name in sorted(sums):
            values, counts = zip(*(theirs[name] for theirs in everyone), strict=True)
            if name.startswith(("min_", "max_")):
                result[name] = min(values) * (1 if name.startswith("min_") else -1)
            else:
                result[name] = sum(values) / sum(counts)
        return result

    def _fetch(self) -> None:
        """Move waiting values to the CPU, in one transfer per device, and sum them batch by batch."""
        waiting, self._waiting, self._values, self._step = self._waiting, [], 0, None
        for device in {values.device for _, values in waiting}:
            rows = [(name, values) for name, values in waiting if values.device == device]
            everything = torch.cat([values for _, values in rows]).cpu().double()
            for (name, _), values in zip(rows, everything.split([len(values) for _, values in rows]), strict=True):
                self._take(name, values)

    def _take(self, name: str, values: Tensor) -> None:
        count = len(values)
        if name.startswith(("min_", "max_")):
            smallest = values if name.startswith("min_") else -values
            total = float(smallest.min()) if count else float("inf")
        else:
            total = float(values.sum())
        if name in self._sums:
            earlier, rows = self._sums[name]
            total = min(earlier, total) if name.startswith(("min_", "max_")) else earlier + total
            count += rows
        self._sums[name] = total, count
