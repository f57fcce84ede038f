"""Predicted against measured seconds of real steps: `python -m benchmarks.planner_time`, on a CPU or a GPU.

Each setting is trained for six steps in a process of its own, on rows of equal length and a model with random weights,
and planned there right after, so that the probe finds the machine as the steps did. The median of the steps from the
second on counts. Each has a file in `benchmarks/results/planner_time/DEVICE/`; finished ones are skipped.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.planner_run import Run, Steps, save_model
from hf_align.files import write_json

RESULTS = Path(__file__).parent / "results" / "planner_time"
STEPS = 6
SETTINGS = {  # rows of a micro-batch, tokens of a prompt, and of a response
    "wide_reward_fp32_none": (4, 96, 96),
    "wide_dpo_bf16_none": (4, 96, 96),
    "wide_dpo_4bit_selective": (4, 64, 64),
    "wide_ipo_8bit_none": (4, 64, 64),
    "wide_ppo_fp32_none": (4, 96, 48),
    "deep_reward_bf16_full": (4, 96, 96),
    "deep_dpo_fp32_none": (8, 48, 48),
    "deep_ipo_4bit_none": (4, 96, 96),
    "deep_ppo_bf16_none": (8, 32, 64),
    "deep_ppo_fp32_none": (16, 32, 32),
    "smollm2-135m_reward_fp32_none": (2, 96, 96),
    "smollm2-135m_reward_bf16_none": (4, 64, 64),
    "smollm2-135m_dpo_fp32_none": (2, 64, 64),
    "smollm2-135m_dpo_bf16_selective": (2, 128, 64),
    "smollm2-135m_ipo_bf16_full": (2, 64, 64),
    "smollm2-135m_ppo_fp32_none": (4, 48, 32),
}


def measure(name: str, model: Path) -> dict[str, Any]:
    """Train and plan a setting in this process."""
    import torch

    run, steps = Run(name, SETTINGS[name]), Steps()
    run.values["max_steps"] = STEPS
    with tempfile.TemporaryDirectory() as place:
        run.train(model, Path(place, "out"), steps)
        planned = run.plan(model, Path(place))
        start = time.perf_counter()
        predicted = planned.step_seconds
    seconds = [after - before for before, after in pairwise(steps.ends)]
    return {
        "setting": name,
        "size": SETTINGS[name],
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "predicted": predicted,
        "parts": planned.time.parts,
        "measured": statistics.median(seconds),
        "steps": seconds,
        "probe_and_trace_seconds": time.perf_counter() - start,
        "notes": planned.time.notes,
        "torch": torch.__version__,
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """Predicted and measured seconds with the median and worst error, as Markdown."""
    lines = ["| setting | predicted (s) | measured (s) | error |", "| --- | --- | --- | --- |"]
    errors = []
    for result in sorted(results, key=lambda result: result["setting"]):
        error = result["predicted"] / result["measured"] - 1
        errors.append(abs(error))
        numbers = f"{result['predicted']:.3g} | {result['measured']:.3g}"
        lines.append(f"| {result['setting'].replace('_', ' ')} | {numbers} | {error:+.0%} |")
    if errors:
        lines += ["", f"{len(errors)} settings: median error {statistics.median(errors):.0%}, worst {max(errors):.0%}."]
    return "\n".join(lines)


def main() -> None:
    """Measure the settings that are not finished, each in a child process, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default="", help="regular expression: only settings whose name has it")
    parser.add_argument("--out", type=Path, default=RESULTS / "cpu-x86-64", help="folder of the results (%(default)s)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        write_json(options.out / f"{options.one}.json", measure(options.one, options.model))
        return
    with tempfile.TemporaryDirectory() as place:
        for name in SETTINGS:
            if not re.search(options.settings, name) or (options.out / f"{name}.json").exists():
                continue
            model = Path(place, name.split("_")[0])
            if not model.exists():
                save_model(model.name, model)
            command = [sys.executable, "-m", "benchmarks.planner_time", "--one", name, "--model", str(model)]
            done = subprocess.run([*command, "--out", str(options.out)], capture_output=True, text=True, check=False)
            print(f"{name}: {done.stderr.strip().splitlines()[-1] if done.returncode else 'done'}", flush=True)
    print(table([json.loads(path.read_text()) for path in sorted(options.out.glob("*.json"))]))


if __name__ == "__main__":
    main()
