"""Averages over rows, right under accumulation and across processes."""

from __future__ import annotations

from collections import defaultdict
from typing import cast

import torch
from torch import Tensor
from transformers import Trainer
from transformers.utils import logging

logger = logging.get_logger(__name__)


class RowMetrics:
    """Averages over rows, right under accumulation and across processes: sums and counts are kept, not means.

    A metric named `min_*` or `max_*` is the smallest or largest row instead of the mean.
    """

    def __init__(self) -> None:
        self._state: dict[str, Tensor] = {}
        self._count: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))

    def add(self, rows: dict[str, Tensor]) -> None:
        """Add a batch: values `[B]` by name."""
        for name, values in rows.items():
            values = values.detach().double().cpu()
            known = self._state.get(name)
            if name.startswith(("min_", "max_")):
                best = values.min() if name.startswith("min_") else -values.max()
                self._state[name] = best if known is None else torch.minimum(known, best)
            else:
                self._state[name] = values.sum() if known is None else known + values.sum()
            self._count[name] = self._count[name] + len(values)

    def pop(self, trainer: Trainer) -> dict[str, float]:
        """The metrics over all processes; starts afresh. Every process must call it."""
        names = sorted(self._state)
        if not names:
            return {}
        local = torch.stack([torch.stack([self._state[n].double(), self._count[n].double()]) for n in names])
        gathered = cast(Tensor, trainer.accelerator.gather(local[None].to(trainer.args.device, torch.float32)))
        everyone = gathered.double().cpu()
        result = {}
        for number, name in enumerate(names):
            values, counts = everyone[:, number, 0], everyone[:, number, 1]
            if name.startswith(("min_", "max_")):
                result[name] = float(values.min()) * (1 if name.startswith("min_") else -1)
            else:
                result[name] = float(values.sum() / counts.sum())
        self.__init__()
        return result
