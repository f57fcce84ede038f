"""Predicted against measured seconds of real steps: `python -m benchmarks.planner_time`, on a CPU or a GPU.

Each setting is trained for five steps on rows of equal length and a model with random weights, and planned right after.
The median of the steps from the second on counts. On a CPU the seconds are those that the processor spent on this
process, in steps and in the plan's probe alike: with one thread that is the time of an idle machine, whatever else runs
on it. Each has a file in `benchmarks/results/planner_time/DEVICE/`; finished ones are skipped.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.machine import describe_machine
from benchmarks.planner_run import Run, save_model
from hf_align.files import write_json
from hf_align.planning.probe import PROBE, SECONDS

RESULTS = Path(__file__).parent / "results" / "planner_time"
STEPS = 5
SETTINGS = {  # rows of a micro-batch, tokens of a prompt, and of a response
    "wide_reward_fp32_none": (2, 48, 48),
    "wide_dpo_bf16_none": (2, 48, 48),
    "wide_dpo_4bit_selective": (2, 48, 48),
    "wide_ipo_8bit_none": (2, 48, 48),
    "wide_ppo_fp32_none": (4, 48, 32),
    "deep_reward_bf16_full": (2, 96, 96),
    "deep_dpo_fp32_none": (4, 48, 48),
    "deep_ipo_4bit_none": (2, 96, 96),
    "deep_ppo_bf16_none": (4, 32, 32),
    "deep_ppo_fp32_none": (8, 32, 32),
    "smollm2-135m_reward_fp32_none": (2, 48, 48),
    "smollm2-135m_reward_bf16_none": (2, 48, 48),
    "smollm2-135m_dpo_fp32_none": (2, 48, 48),
    "smollm2-135m_dpo_bf16_selective": (2, 64, 32),
    "smollm2-135m_ipo_bf16_full": (2, 48, 48),
    "smollm2-135m_ppo_fp32_none": (4, 32, 16),
}


def clock() -> float:
    """Seconds: of this process on a CPU, else of the day."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Steps(TrainerCallback):
    """Times at which steps ended.

    Attributes:
        ends: Seconds of the clock, and of the day.
    """

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append((clock(), time.perf_counter()))


def measure(name: str, model: Path) -> dict[str, Any]:
    """Train and plan a setting in this process."""
    run, steps = Run(name, SETTINGS[name]), Steps()
    run.values["max_steps"] = STEPS
    with tempfile.TemporaryDirectory() as place:
        run.train(model, Path(place, "out"), steps)
        planned = run.plan(model, Path(place))
        PROBE.left, PROBE.clock = SECONDS, clock
        predicted = planned.step_seconds
    seconds = [after[0] - before[0] for before, after in pairwise(steps.ends)]
    return {
        "setting": name,
        "size": SETTINGS[name],
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "predicted": predicted,
        "parts": planned.time.parts,
        "measured": statistics.median(seconds),
        "steps": seconds,
        "steps_of_the_day": [after[1] - before[1] for before, after in pairwise(steps.ends)],
        "probe_left": PROBE.left,
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
    """Measure the settings that are not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default="", help="regular expression: only settings whose name has it")
    parser.add_argument("--out", type=Path, default=RESULTS / "cpu-x86-64", help="folder of the results (%(default)s)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        for name in SETTINGS:
            if not re.search(options.settings, name) or (options.out / f"{name}.json").exists():
                continue
            model = Path(place, name.split("_")[0])
            if not model.exists():
                save_model(model.name, model)
            write_json(options.out / f"{name}.json", measure(name, model))
            print(name, flush=True)
    print(table([json.loads(path.read_text()) for path in sorted(options.out.glob("*.json"))]))


if __name__ == "__main__":
    main()
