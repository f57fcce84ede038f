"""A few of the embedded ratings, in the place of the thousands that the recipes name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from datasets import Dataset, disable_progress_bars, enable_progress_bars

from hf_align.algorithms import ALGORITHMS, Rows
from hf_align.data.sources import EMBEDDED, load_rows


@cache
def _held_out(kind: Rows) -> Dataset:
    return load_rows(EMBEDDED, "eval", 0, kind)


def few(command: str, folder: Path, train: int = 8, held_out: int = 4) -> list[str]:
    """Flags that let a command train and evaluate on so many rows, which are saved in `folder`."""
    flags, start = [], 0
    for role, count in (("train", train), ("eval", held_out)):
        place = folder / f"{command}-{role}"
        if not place.exists():
            rows = _held_out(ALGORITHMS[command].rows).select(range(start, start + count))
            disable_progress_bars()
            rows.save_to_disk(place)
            enable_progress_bars()
        start += count
        flags += [f"--{role}_dataset", str(place)]
    return flags
