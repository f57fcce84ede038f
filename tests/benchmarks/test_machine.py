from __future__ import annotations

import pytest
import torch

from benchmarks.flops import Gemm
from benchmarks.machine import GemmClock, describe_machine


def test_each_shape_is_measured_once_with_operands_of_that_shape(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[torch.Size, torch.Size, torch.dtype]] = []

    def product(a: torch.Tensor, b: torch.Tensor) -> None:
        seen.append((a.shape, b.shape, a.dtype))

    monkeypatch.setattr(torch, "matmul", product)
    clock = GemmClock(torch.bfloat16, least_seconds=0)
    gemms = [Gemm("linear", 3, 4, 5, transposed=kind) for kind in (0, 1, 2)] + [Gemm("attention", 3, 4, 5, batch=2)]
    for gemm in gemms:
        clock.seconds(gemm)
    calls = len(seen)
    clock.seconds(Gemm("head", 3, 4, 5, count=7))
    assert len(seen) == calls
    assert set(seen) == {((3, 4), (4, 5), torch.bfloat16), ((2, 3, 4), (2, 4, 5), torch.bfloat16)}


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["memory"] > 2**28 and machine["cpu"]
