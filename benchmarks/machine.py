"""The machine of a measurement, and its speed in matrix products."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.flops import Gemm

ROOT = Path(__file__).parents[1]
LEAST_SECONDS, REPEATS = 0.02, 7


def describe_machine() -> dict[str, Any]:
    """CPU model, cores, memory in bytes, whether it computes in bfloat16, and the GPU if there is one."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **(_gpu_versions() if torch.cuda.is_available() else {}),
    }


def _gpu_versions() -> dict[str, str | None]:
    """Versions of the driver and of torch's CUDA."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return {"driver": next(iter(done.stdout.split()), None), "cuda": torch.version.cuda}


def commit() -> str | None:
    """The checked-out commit, or None outside a git repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


class GemmClock:
    """Seconds that matrix products take on this machine, each shape measured once.

    Args:
        dtype: Dtype of the operands.
        least_seconds: Minimum time over which a measurement repeats the product.
    """

    def __init__(self, dtype: torch.dtype, least_seconds: float = LEAST_SECONDS):
        self.dtype, self.least_seconds = dtype, least_seconds
        self._seconds: dict[tuple[int, ...], float] = {}

    def seconds(self, gemm: Gemm) -> float:
        """Seconds of one product of this shape: the minimum of a few measurements, with operands laid out as in
        autograd.

        The minimum, because other load on the machine only adds time, which must not raise a floor.
        """
        key = (gemm.batch, gemm.m, gemm.k, gemm.n, gemm.transposed)
        if key not in self._seconds:
            self._seconds[key] = self._measure(*key)
        return self._seconds[key]

    def _measure(self, batch: int, m: int, k: int, n: int, transposed: int) -> float:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        lead = (batch,) if batch > 1 else ()
        a = torch.randn(*lead, *((k, m) if transposed == 2 else (m, k)), device=device).to(self.dtype)
        b = torch.randn(*lead, *((n, k) if transposed == 1 else (k, n)), device=device).to(self.dtype)
        a = a.mT if transposed == 2 else a
        b = b.mT if transposed == 1 else b

        def product() -> None:
            torch.matmul(a, b)

        with torch.no_grad():
            product()
            times = max(1, int(self.least_seconds / max(_timed(product, 1), 1e-7)))
            return min(_timed(product, times) for _ in range(REPEATS))


def _timed(function: Callable[[], None], times: int) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times
