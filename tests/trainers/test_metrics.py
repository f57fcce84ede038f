"""Metrics are means over rows, independent of batches, and are transferred from the device once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_align.layout.branches import Branches
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.metrics import RowMetrics
from tests.tiny import save_tiny
from tests.trainers.pairs import options, pairs


class OnDevice(Tensor):
    """A tensor that counts its transfers to the CPU, and refuses synchronisation and what some devices lack."""

    transfers: ClassVar[int] = 0
    refused = (Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__bool__, Tensor.numpy, Tensor.double)

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        assert func not in cls.refused, func
        result: Any = super().__torch_function__(func, types, args, kwargs)
        if func is not Tensor.cpu:
            return result
        OnDevice.transfers += 1
        return result.as_subclass(Tensor)


class WatchedTrainer(DPOTrainer):
    """DPO whose metrics count their transfers."""

    def row_losses(
        self, model: nn.Module, inputs: dict[str, Any], branches: Branches
    ) -> tuple[Tensor, dict[str, Tensor]]:
        losses, metrics = super().row_losses(model, inputs, branches)
        return losses, {name: values.detach().as_subclass(OnDevice) for name, values in metrics.items()}


def test_means_are_means_over_rows():
    metrics = RowMetrics()
    metrics.add(
        {"a": torch.tensor([1.0, 2.0, 3.0]), "min_a": torch.tensor([1.0, 2.0, 3.0]), "max_a": torch.tensor([3.0])}
    )
    metrics.add({"a": torch.tensor([10.0]), "min_a": torch.tensor([-4.0]), "max_a": torch.tensor([-5.0])})
    assert metrics.pop() == {"a": 4.0, "min_a": -4.0, "max_a": 3.0}
    assert metrics.pop() == {}


def test_a_step_takes_one_transfer(tmp_path: Path):
    trainer = WatchedTrainer(
        save_tiny(tmp_path / "base"),
        args=DPOConfig(**options(tmp_path / "out", max_steps=2, gradient_accumulation_steps=4)),
        train_dataset=pairs(),
    )
    before = OnDevice.transfers
    trainer.train()
    assert OnDevice.transfers - before == 2
    assert trainer.state.log_history[0]["rewards/margins"] == 0


def test_small_numbers_count_beside_large_ones():
    metrics = RowMetrics()
    metrics.add({"a": torch.tensor([2.0**25])})
    for _ in range(101):
        metrics.add({"a": torch.tensor([1.0])})
    assert metrics.pop() == {"a": (2**25 + 101) / 102}, "a float32 sum would not move"


def test_only_so_many_values_wait():
    metrics = RowMetrics(most_waiting=3)
    before = OnDevice.transfers
    for _ in range(4):
        metrics.add({"a": torch.ones(2).as_subclass(OnDevice)})
    assert OnDevice.transfers - before == 2
    assert metrics.pop() == {"a": 1.0}
