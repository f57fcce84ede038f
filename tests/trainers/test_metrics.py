"""Metrics are means over rows, whatever the batches were."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from hf_align.trainers.metrics import RowMetrics


def test_means_are_means_over_rows():
    metrics = RowMetrics()
    metrics.add(
        {"a": torch.tensor([1.0, 2.0, 3.0]), "min_a": torch.tensor([1.0, 2.0, 3.0]), "max_a": torch.tensor([3.0])}
    )
    metrics.add({"a": torch.tensor([10.0]), "min_a": torch.tensor([-4.0]), "max_a": torch.tensor([-5.0])})
    assert metrics.pop(Accelerator()) == {"a": 4.0, "min_a": -4.0, "max_a": 3.0}
    assert metrics.pop(Accelerator()) == {}
