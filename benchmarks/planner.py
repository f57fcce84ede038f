"""Predicted against measured memory of real runs: `python -m benchmarks.planner`, on a CPU or a GPU.

Each setting is trained for three steps in a process of its own, on rows of equal length and a model with random weights
(`benchmarks/planner_run.py`), and has a file in `benchmarks/results/planner/DEVICE/`; finished ones are skipped. On a
GPU `--jobs 6` measures six at a time; those that fail side by side, say for lack of memory, run again alone. On a CPU
malloc maps every tensor by itself (`MALLOC_MMAP_THRESHOLD_`), so that freed ones leave no holes; with `--heap` it is
left as it is, and results have a folder of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.planner_run import Run, figures, save_model
from hf_align.files import write_json

RESULTS = Path(__file__).parent / "results" / "planner"
SMALL, LARGE = (4, 96, 96), (4, 256, 256)
"""Rows of a micro-batch, tokens of a prompt, and of a response."""
SHAPES = {"smollm2-135m": SMALL, "wide": SMALL, "deep": SMALL, "llama-1b": LARGE}
ON_GPUS = ("llama-1b",)
"""Shapes for which two cores take too long."""
ALGORITHMS = ("reward", "dpo", "ipo", "ppo")
RECOMPUTE = ("none", "selective", "full")
MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
"""Environment with which malloc maps large blocks by themselves."""
PRECISION = ("fp32", "bf16", "8bit", "4bit")


def settings(*, gpu: bool = False) -> Iterator[str]:
    """Names of all settings: shape, algorithm, precision, recomputation; each precision meets each recomputation."""
    for number, shape in enumerate(SHAPES):
        if shape in ON_GPUS and not gpu:
            continue
        for place, algorithm in enumerate(ALGORITHMS):
            for turn, recompute in enumerate(RECOMPUTE):
                precision = PRECISION[(place + turn + number) % len(PRECISION)]
                yield f"{shape}_{algorithm}_{precision}_{recompute}"


def folder_of(device: str) -> str:
    """Name of a device's folder of results: "cpu-x86-64", "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def this_device() -> tuple[bool, str]:
    """Whether there is a GPU, and the device's name; asked in a process of its own, which opens the GPU."""
    code = (
        "from benchmarks.planner_run import device_name; import torch; print(torch.cuda.is_available(), device_name())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    gpu, _, name = said.strip().splitlines()[-1].partition(" ")
    return gpu == "True", name


def run_one(name: str, models: Path, out: Path, heap: bool) -> str | None:
    """Measure a setting in a child process.

    Returns:
        None, or the last line of what it said on failing; all of it is in a file beside the results.
    """
    shape = name.split("_")[0]
    command = [sys.executable, "-m", "benchmarks.planner_run", name, *map(str, SHAPES[shape])]
    command += ["--model", str(models / shape), "--out", str(out / f"{name}.json")]
    environment = {**os.environ, **({} if heap else MAPPED)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not done.returncode:
        return None
    (out / f"{name}.err").write_text(done.stderr, encoding="utf-8")
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def run_all(names: Sequence[str], out: Path, jobs: int, heap: bool) -> None:
    """Measure settings, so many at a time; those that fail beside others again alone."""
    with tempfile.TemporaryDirectory() as place:
        models = Path(place)
        for shape in {name.split("_")[0]: None for name in names}:
            save_model(shape, models / shape)
        measured = partial(run_one, models=models, out=out, heap=heap)
        left = list(names)
        for at_once in (jobs, 1) if jobs > 1 else (1,):
            failed = []
            with ThreadPoolExecutor(at_once) as pool:
                for name, error in zip(left, pool.map(measured, left), strict=True):
                    print(f"{name}: {error or 'done'}", flush=True)
                    failed += [name] if error else []
            left = failed


def replan(out: Path) -> None:
    """Plan a device's finished settings again, by the planner as it is now; what was measured stays."""
    gpu = "resident_at_start" not in json.loads(next(out.glob("*.json")).read_text())
    if not out.name.endswith("-heap"):
        os.environ.update(MAPPED)
    with tempfile.TemporaryDirectory() as place:
        for path in sorted(out.glob("*.json")):
            result = json.loads(path.read_text())
            model = Path(place, shape := result["setting"].split("_")[0])
            if not model.exists():
                save_model(shape, model)
            planned = Run(result["setting"], tuple(result["size"])).plan(model, Path(place), "80GB" if gpu else None)
            write_json(path, {**result, **figures(planned)})


def error_of(result: dict[str, Any], planned: str, measured: str) -> float:
    """By how much of what was measured the plan is above it."""
    return result[planned] / result[measured] - 1


def table(results: Sequence[dict[str, Any]]) -> str:
    """Predicted and measured memory of a device's results, with median and worst error, as Markdown."""
    gpu = "resident_at_start" not in results[0]
    columns = [("predicted", "tensors", "tensors")]
    columns += [] if gpu else [("with_margin", "measured", "resident")]
    names = [f"{name} | measured | error" for name in (["tensors"] if gpu else ["tensors", "with margin"])]
    lines = ["MiB:", "", f"| setting | {' | '.join(names)} |", "| --- " * (1 + 3 * len(columns)) + "|"]
    for result in sorted(results, key=lambda result: result["setting"]):
        cells = []
        for planned, measured, _ in columns:
            cells += [f"{result[key] / 2**20:.0f}" for key in (planned, measured)]
            cells.append(f"{error_of(result, planned, measured):+.1%}")
        lines.append(f"| {result['setting'].replace('_', ' ')} | {' | '.join(cells)} |")
    for planned, measured, words in columns:
        errors = [error_of(result, planned, measured) for result in results]
        sizes = [abs(error) for error in errors]
        said = f"{len(errors)} settings, {words}: median error {statistics.median(sizes):.1%}, worst {max(sizes):.1%}"
        lines += ["", f"{said}, from {min(errors):+.1%} to {max(errors):+.1%}."]
    return "\n".join(lines)


def main() -> None:
    """Measure the settings that are not finished, and print the device's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default="", help="regular expression: only settings whose name has it")
    parser.add_argument("--jobs", type=int, default=1, help="settings at a time; on a CPU 1 (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (%(default)s)")
    parser.add_argument("--heap", action="store_true", help="on a CPU: malloc as it is")
    parser.add_argument("--replan", metavar="FOLDER", type=Path, help="plan the settings in it again, measure nothing")
    options = parser.parse_args()
    if options.replan is not None:
        replan(options.replan)
        print(table([json.loads(path.read_text()) for path in sorted(options.replan.glob("*.json"))]))
        return
    gpu, device = this_device()
    out: Path = options.out / (folder_of(device) + ("-heap" if options.heap else ""))
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in settings(gpu=gpu) if re.search(options.settings, name)]
    run_all([name for name in names if not (out / f"{name}.json").exists()], out, options.jobs, options.heap)
    if results := [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]:
        print(table(results))


if __name__ == "__main__":
    main()
