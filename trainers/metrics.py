"""Averages over rows, right under accumulation and across processes."""

from __future__ import annotations

from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor


class RowMetrics:
    """Averages over rows, right under accumulation and across processes: sums and counts are kept, not means.

    A metric named `min_*` or `max_*` is the smallest or largest row instead of the mean.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}  # of extremes: the smallest value, of `max_*` negated

    def add(self, rows: dict[str, Tensor]) -> None:
        """Add a batch: values `[B]` by name."""
        for name, values in rows.items():
            values = values.detach()
            # On CUDA they stay there until they are logged: fetching them would wait for the whole forward pass, and
            # the backward pass would be launched late. Other devices may have no float64.
            values = (values if values.device.type == "cuda" else values.cpu()).double()
            if name.startswith(("min_", "max_")):
                total = values.min() if name.startswith("min_") else -values.max()
            else:
                total = values.sum()
            count = len(values)
            if name in self._sums:
                earlier, rows_before = self._sums[name]
                total = torch.minimum(earlier, total) if name.startswith(("min_", "max_")) else earlier + total
                count += rows_before
            self._sums[name] = total, count

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """Compute the metrics over all processes, and start afresh. Every process must call it."""
        sums, self._sums = self._sums, {}
        if not (names := sorted(sums)):
            return {}
        local = torch.tensor([[float(sums[name][0]), sums[name][1]] for name in names], dtype=torch.float32)
        everyone = cast(Tensor, accelerator.gather(local[None].to(accelerator.device))).double().cpu()
        result = {}
        for number, name in enumerate(names):
            values, counts = everyone[:, number, 0], everyone[:, number, 1]
            if name.startswith(("min_", "max_")):
                result[name] = float(values.min()) * (1 if name.startswith("min_") else -1)
            else:
                result[name] = float(values.sum() / counts.sum())
        return result
