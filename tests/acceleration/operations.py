"""Counts of a computation's calls in torch's profiler: autograd functions and ATen operations by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch.autograd.profiler import profile


@contextmanager
def operations() -> Iterator[Counter[str]]:
    """Give a counter that is filled when the block ends."""
    counts: Counter[str] = Counter()
    with profile() as recorded:
        yield counts
    counts.update(event.name for event in cast(Any, recorded).function_events or ())
