"""Finished runs: one JSON line each, with settings, scores, versions, machine and command."""

from __future__ import annotations

import base64
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe_machine
from hf_align.version import versions

RESULTS = Path(__file__).parents[1] / "results" / "reward_study"
Run = dict[str, Any]


def read(path: Path) -> list[Run]:
    """The finished runs of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, entry: Run) -> None:
    """Add a finished run, with its command, versions and machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = "python -m benchmarks.study " + shlex.join(sys.argv[1:])
    with path.open("a") as file:
        file.write(json.dumps({**entry, "command": command, "versions": versions(), "machine": describe_machine()}))
        file.write("\n")


def packed(scores: NDArray | Sequence[float]) -> str:
    """Scores as text: base64 of 16-bit floats."""
    return base64.b64encode(np.asarray(scores, dtype="<f2").tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float64]:
    """Scores that were packed."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(float)


def scores_of(run: Run) -> dict[str, dict[str, NDArray[np.float64]]]:
    """A run's scores by split and domain."""
    return {split: {domain: unpacked(text) for domain, text in each.items()} for split, each in run["scores"].items()}
