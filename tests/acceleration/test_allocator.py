"""Memory that tensors free stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import gc, resource
gc.disable()  # imports create no garbage, and collecting takes a fifth of their time
import torch
from hf_align.acceleration.allocator import keep_freed_memory, reason_against

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

print(int(reason_against() is None))
undo, another = keep_freed_memory(), keep_freed_memory()
another()
for _ in range(4):  # the heap grows to its size
    x = torch.ones(12_000_000)
    del x
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    x = torch.ones(10_000_000)
    del x
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
held = resident()
undo()
print(held - resident())
x = torch.ones(12_000_000)
held = resident()
del x
print(held - resident())
"""
PAGES = 10_000_000 * 4 // 4096


def measured(**environment: str) -> tuple[bool, int, int, int]:
    """Whether it was set, page faults of ten tensors of 40 MB, bytes given back on undo, and those given back by a
    tensor of 48 MB after that.
    """
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    was_set, faults, released, after = (int(line) for line in out.stdout.split())
    return bool(was_set), faults, released, after


@pytest.mark.skipif(sys.platform != "linux", reason="malloc of glibc")
def test_the_next_tensors_take_the_memory_of_the_last_until_it_is_released() -> None:
    was_set, faults, released, after = measured()
    assert was_set
    # Fetched again each time, they would be ten times PAGES; a second or third allocation may be needed once.
    assert faults < 5 * PAGES
    assert released > 40_000_000
    assert after > 40_000_000, "malloc gives large blocks back at once again"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="malloc of glibc")
def test_a_users_own_settings_stay() -> None:
    was_set, faults, released, _ = measured(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert not was_set
    assert faults > 8 * PAGES
    assert released < 1_000_000
