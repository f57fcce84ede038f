"""Alternating runs of both sides of a benchmark, each in a separate process, and their comparison."""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers import install_peer
from benchmarks.spec import TRL_VERSIONS, Spec, Task

ROOT = Path(__file__).parents[1]
BOUNDS = {"fp32": 1e-3, "bf16": 2e-2}
"""Maximum difference of the sides' first losses and log-probs, relative to the number or to 1 if that is larger.

Per-token log-probs are compared by their mean absolute difference, and in bf16 may differ by 0.05 nats.
"""
TOKEN_BOUNDS = {"fp32": 1e-3, "bf16": 5e-2}
GRADIENT_FACTOR = 5
EXIT_OK, EXIT_FAILED = 0, 1
Say = Callable[[str], None]


class RunFailed(RuntimeError):
    """A side's process ended with an error, or the sides computed different things."""


def peer_path(task: Task, folder: Path, say: Say) -> Path | None:
    """Folder of this task's TRL, or None if the environment has that version."""
    version = TRL_VERSIONS[task]
    if importlib.metadata.version("trl") == version:
        return None
    say(f"TRL {version}: into {folder}")
    return install_peer("trl", version, folder)


def run_side(spec: Spec, path: Path | None = None) -> dict[str, Any]:
    """Run one side and return its result.

    Raises:
        RunFailed: Gives the last line of its output, and the log file.
    """
    spec_file = spec.write()
    result = Path(spec.out) / "result.json"
    result.unlink(missing_ok=True)
    # The peer first, so that this version takes precedence over the environment's; the user's entries last.
    search = [*([str(path)] if path else []), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search),
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    log = Path(spec.out) / "log.txt"
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.child", str(spec_file)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=spec.out,
        )
    if done.returncode or not result.exists():
        lines = log.read_text(encoding="utf-8").strip().splitlines() or [f"exit status {done.returncode}"]
        raise RunFailed(f"the run of {spec.side} failed: {lines[-1]} (full output: {log})")
    return json.loads(result.read_text(encoding="utf-8"))


def run_pairs(spec: Spec, runs: int, peer: Path | None, with_peer: bool, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Run each side `runs` times; the sides alternate in going first, so that a machine that slows down favours
    neither.

    Args:
        spec: Our side's; the peer's differs in side, folder and options that only we have.
        runs: Pairs of runs.
        peer: The peer's folder, None if it is in the environment.
        with_peer: Whether there is a peer.
        say: Prints a line after each run.
    """
    results: dict[str, list[dict[str, Any]]] = {"ours": []}
    if with_peer:
        results["trl"] = []
    for number in range(runs):
        # TRL runs first: it records PPO's first rollout.
        order = list(results) if number % 2 else list(results)[::-1]
        for side in order:
            side_spec = replace(spec, side=side, out=str(Path(spec.out) / f"{side}-{number + 1}"))
            side_spec = side_spec if side == "ours" else replace(side_spec, recompute=False)
            result = run_side(side_spec, peer if side == "trl" else None)
            results[side].append(result)
            timed = result["seconds"][spec.warmup :]
            say(
                f"  run {number + 1} of {runs}, {side}: {statistics.median(timed):.2f} s per step, "
                f"{result['memory']['peak'] / 1e9:.2f} GB"
            )
    return results


def compare(ours: dict[str, Any], peer: dict[str, Any], dtype: str) -> dict[str, dict[str, Any]]:
    """Compare the first step's numbers: name, both values, their difference and whether it is within its bound.

    Args:
        ours: `first` of our result.
        peer: `first` of the peer's result.
        dtype: "fp32" or "bf16".
    """
    rows = {}
    for name in ours.keys() & peer.keys():
        ours_value, peer_value = ours[name], peer[name]
        if isinstance(ours_value, list):
            pairs = [pair for rows_ in zip(ours_value, peer_value, strict=True) for pair in zip(*rows_, strict=True)]
            difference = statistics.fmean(abs(a - b) for a, b in pairs)
            ours_value, peer_value = (statistics.fmean(side) for side in zip(*pairs, strict=True))
            bound = TOKEN_BOUNDS[dtype]
        else:
            difference = abs(ours_value - peer_value)
            factor = GRADIENT_FACTOR if name == "grad_norm" else 1
            bound = factor * BOUNDS[dtype] * max(1.0, abs(peer_value))
        same = difference <= bound
        rows[name] = {"ours": ours_value, "peer": peer_value, "difference": difference, "bound": bound, "same": same}
    return dict(sorted(rows.items()))


def summarise(results: list[dict[str, Any]], warmup: int, tokens: float, episodes: int | None) -> dict[str, Any]:
    """A side's figures over its runs.

    Args:
        results: Results of its runs.
        warmup: Steps of each run that don't count.
        tokens: Tokens per step, each prompt counted once.
        episodes: Responses per step, for PPO.
    """
    medians = [statistics.median(result["seconds"][warmup:]) for result in results]
    step = statistics.median(medians)
    rates = {"tokens_per_second": tokens / step} | ({"episodes_per_second": episodes / step} if episodes else {})
    return {
        "step_seconds": step,
        **rates,
        "step_seconds_of_runs": medians,
        "peak_bytes": max(result["memory"]["peak"] for result in results),
        "peak_bytes_of_runs": [result["memory"]["peak"] for result in results],
        "versions": results[-1]["versions"],
    }


def ratios(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Speed and memory relative to the peer's: the ratio of each pair of runs, and their median."""
    pairs = {
        "times_faster": zip(peer["step_seconds_of_runs"], ours["step_seconds_of_runs"], strict=True),
        "memory_share": zip(ours["peak_bytes_of_runs"], peer["peak_bytes_of_runs"], strict=True),
    }
    result = {}
    for name, values in pairs.items():
        of_pairs = [first / second for first, second in values]
        result[name] = {
            "median": statistics.median(of_pairs),
            "least": min(of_pairs),
            "most": max(of_pairs),
            "pairs": of_pairs,
        }
    return result
