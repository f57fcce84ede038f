"""`python -m benchmarks scaling`: growth of our time and memory along one axis at a time, with fitted exponents."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

import hf_align
from benchmarks.commands import embedded_model, prepare_ppo, say, shown_command
from benchmarks.floor import step_gemms
from benchmarks.growth import Point
from benchmarks.machine import commit, describe_machine
from benchmarks.results import write_result
from benchmarks.session import EXIT_FAILED, EXIT_OK, ROOT, RunFailed, run_side
from benchmarks.spec import Spec
from hf_align.errors import UserError

AXES: dict[str, tuple[str, list[Point]]] = {
    "tokens": (
        "tokens of a prompt, and half of that of each response",
        [Point(prompt=size, response=size // 2, documents=2) for size in (128, 256, 512, 1024, 2048)],
    ),
    "vocabulary": ("words of the vocabulary", [Point(vocabulary=2**power) for power in (13, 14, 15, 16, 17)]),
    "branches": ("responses per prompt (K)", [Point(branches=count) for count in (1, 2, 4, 8, 16)]),
}
SAMPLES, SAMPLE_PROMPTS = (1, 2, 4, 8), 4
PPO_AXIS = "samples"
LABELS = {axis: label for axis, (label, _) in AXES.items()} | {PPO_AXIS: "PPO responses to each of 4 prompts"}
IMAGE = "growth.png"


def run(options: argparse.Namespace) -> int:
    """Measure all curves, fit and draw them."""
    try:
        import matplotlib  # noqa: F401  # before minutes of measuring, not after
    except ImportError:
        raise UserError("scaling draws curves with matplotlib; pip install 'hf-align[report]'") from None
    work = Path(options.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[dict[str, Any]]] = {}
    try:
        for axis, (label, points) in AXES.items():
            say(f"{label}:")
            curves[axis] = [_measured(point, axis, work) for point in points]
        say(f"{LABELS[PPO_AXIS]}:")
        curves[PPO_AXIS] = [_rollout(count, options, work) for count in SAMPLES]
    except RunFailed as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    result = {
        "command": shown_command(options.given),
        "commit": commit(),
        "machine": describe_machine(),
        "versions": {
            "hf_align": hf_align.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "curves": curves,
        "exponents": {axis: exponents(points) for axis, points in curves.items()},
    }
    saved = write_result(Path(options.out), "scaling", result)
    image = Path(options.images) / IMAGE
    draw(curves, result["exponents"], image)
    say(f"  -> {saved}, {image}")
    return EXIT_OK


def exponents(points: Sequence[dict[str, float]]) -> dict[str, float]:
    """p in `y ~ x**p` by least squares on logarithms, for seconds, bytes and counted operations."""
    x = [point["x"] for point in points]
    return {name: slope(x, [point[name] for point in points]) for name in (*Y_AXES, THEORY)}


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    logs = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True)]
    mean_x, mean_y = (statistics.fmean(column) for column in zip(*logs, strict=True))
    return sum((a - mean_x) * (b - mean_y) for a, b in logs) / sum((a - mean_x) ** 2 for a, _ in logs)


THEORY = "operations"
"""Key of the matrix products' operations, with which time should grow."""
Y_AXES = {"seconds": ("seconds", 1.0), "bytes": ("GB above the idle process", 1e-9)}


def draw(curves: dict[str, list[dict[str, float]]], fitted: dict[str, dict[str, float]], path: Path) -> None:
    """Draw time and memory of every axis, on logarithmic scales; dashed: the operations, scaled to the last time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(curves), 5.6), layout="constrained")
    grid = figure.subplots(len(Y_AXES), len(curves), squeeze=False)
    for column, (axis, points) in enumerate(curves.items()):
        for row, (name, (label, unit)) in enumerate(Y_AXES.items()):
            panel = grid[row][column]
            x, y = [point["x"] for point in points], [point[name] * unit for point in points]
            title = f"exponent {fitted[axis][name]:.2f}"
            if name == "seconds":
                counted = [point[THEORY] * y[-1] / points[-1][THEORY] for point in points]
                panel.loglog(x, counted, "--", color="0.6", label="operations")
                title += f", of the operations {fitted[axis][THEORY]:.2f}"
            panel.loglog(x, y, "o-", color="C0")
            panel.set_title(title, fontsize=9)
            panel.set_xscale("log", base=2)
            panel.grid(True, which="both", alpha=0.25)
            if column == 0:
                panel.set_ylabel(label)
            if row == len(Y_AXES) - 1:
                panel.set_xlabel(LABELS[axis], fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _measured(point: Point, axis: str, work: Path) -> dict[str, Any]:
    given, result = work / "point.json", work / "point-result.json"
    given.write_text(json.dumps(vars(point)), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.growth", str(given), str(result)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=work, capture_output=True, text=True
    )
    if done.returncode:
        raise RunFailed(f"{axis}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    measured = json.loads(result.read_text(encoding="utf-8"))
    x = {"tokens": point.prompt, "vocabulary": point.vocabulary, "branches": point.branches}[axis]
    say(f"  {x}: {measured['seconds']:.3f} s, {measured['bytes'] / 1e9:.3f} GB")
    return {"x": x, **measured}


def _rollout(samples: int, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    model = options.model or str(embedded_model(work))
    spec = Spec(
        task="ppo",
        side="ours",
        model=model,
        rows=str(work / "scaling-rows.json"),
        out=str(work / "runs" / f"scaling-{samples}"),
        batch=samples * SAMPLE_PROMPTS,
        num_samples=samples,
        steps=2,
        seed=options.seed,
    )
    spec = replace(prepare_ppo(spec, work), responses=None)
    result = run_side(spec)
    seconds, used = min(result["seconds"][spec.warmup :]), result["memory"]["peak"] - result["memory"]["start"]
    say(f"  {samples}: {seconds:.2f} s, {used / 1e9:.3f} GB")
    operations = sum(gemm.flops for gemm in step_gemms(spec)[0])
    return {"x": samples, "seconds": seconds, "bytes": used, "operations": operations}
