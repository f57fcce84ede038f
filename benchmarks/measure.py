"""Time and memory inside a benchmark's process, measured alike on both sides.

Imports only torch and transformers: the peer's process loads nothing of ours except `benchmarks`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

START_DEVIATION = 0.02
"""Standard deviation of the adapters' A matrices (and reward heads) that both sides start from."""


STARTED_ALIKE = {"dpo": ("lora_A.default",), "reward": ("lora_A.default", ".score."), "ppo": ("lora_A.default",)}
"""Parameters that start from the same random weights; PPO's value heads start at zero."""


class Clock(TrainerCallback):
    """Wall time of whole steps of the Trainer's loop: data, forward, backward, optimizer, log.

    Args:
        every: Optimizer steps that count as one (our PPO makes several per rollout).
        profile_from: The step, counted this way, in which the profiler runs; its time isn't used. None: no profile.
    """

    def __init__(self, every: int = 1, profile_from: int | None = None):
        self.every, self.profile_from = every, profile_from
        self.marks: list[float] = []
        self.held = 0  # bytes, before the first step
        self.profile: dict[str, float] | None = None
        self._profiler: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start timing, before the first batch is fetched."""
        self.held = memory()["now"]
        self.marks = [time.perf_counter()]
        self._maybe_profile()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the time of an optimizer step."""
        if state.global_step % self.every:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            self.profile = {event.key: event.self_cpu_time_total / 1e6 for event in self._profiler.key_averages()}
            self._profiler = None
        self._maybe_profile()

    def _maybe_profile(self) -> None:
        if self.profile_from is not None and len(self.marks) == self.profile_from + 1:
            self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
            self._profiler.__enter__()

    @property
    def seconds(self) -> list[float]:
        """Seconds of each step, including the first."""
        return [later - earlier for earlier, later in zip(self.marks, self.marks[1:], strict=False)]


class Losses:
    """Record of every loss passed to `accelerator.backward`."""

    def __init__(self, accelerator: Any):
        self.values: list[float] = []
        backward = accelerator.backward

        def record(loss: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.values.append(loss.item())
            return backward(loss, *args, **kwargs)

        accelerator.backward = record


@torch.no_grad()
def start_alike(model: torch.nn.Module, seed: int, parts: Sequence[str]) -> None:
    """Give the adapter's A matrices and reward heads the same weights on both sides (B is zero).

    Names differ between the sides only by a prefix, so their order is the same.

    Args:
        model: The whole model, or a trainer's wrapper around it.
        seed: Seed of the weights.
        parts: Substrings of the names of the parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad and any(part in f".{name}" for part in parts):
            values = torch.randn(parameter.shape, generator=generator) * START_DEVIATION
            parameter.copy_(values.to(parameter.device, parameter.dtype))


def memory() -> dict[str, int]:
    """Peak bytes of this process: resident set on CPU (`VmHWM`), the allocator's on CUDA; and the bytes held now."""
    if torch.cuda.is_available():
        return {"peak": torch.cuda.max_memory_allocated(), "now": torch.cuda.memory_allocated()}
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {key: int(status[field].split()[0]) * 1024 for key, field in (("peak", "VmHWM"), ("now", "VmRSS"))}
