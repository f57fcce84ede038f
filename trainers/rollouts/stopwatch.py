"""Shares of wall time that the phases of a run take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds by phase.

    Args:
        phases: Names of the phases.

    Example:
        >>> from hf_align.trainers.rollouts.stopwatch import Stopwatch
        >>> stopwatch = Stopwatch("generate", "score")
        >>> with stopwatch.timed("score"):
        ...     total = sum(range(1000))
        >>> stopwatch.shares()
        {'generate': 0.0, 'score': 1.0}
    """

    def __init__(self, *phases: str) -> None:
        self._seconds = dict.fromkeys(phases, 0.0)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time until the accelerator has finished what the block asks for."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            self._seconds[phase] += time.perf_counter() - start

    def shares(self) -> dict[str, float]:
        """Each phase's share of the time measured since the last call, by name; empty if nothing was."""
        total = sum(self._seconds.values())
        shares = {phase: seconds / total for phase, seconds in self._seconds.items() if total}
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return shares
