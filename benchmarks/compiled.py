"""What torch.compile would do to a training step: time, graphs and losses, beside `acceleration`.

The same steps of DPO with LoRA on the embedded pairs, each way in a process of its own:

    python -m benchmarks.compiled --base out/base --save compiled.json [--way none auto layers] [--steps 8]

- `none`, `auto`: without torch.compile, `acceleration` as named.
- `layers`: each decoder layer compiled with dynamic shapes, `acceleration="none"`. `layers-auto`: with "auto".
- `whole`: the trainer's model compiled as Trainer's `torch_compile=True` does it.

Times are seconds of the processor in one thread, so that other work on the machine doesn't count. "compiling" is what
the first two steps take beyond the median of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch._dynamo import utils as dynamo
from transformers import TrainerCallback

from benchmarks.machine import commit, describe_machine
from hf_align.data.embedded.rows import make_pairs
from hf_align.files import write_json
from hf_align.trainers.dpo import DPOConfig, DPOTrainer

WAYS = ("none", "auto", "layers", "layers-auto", "whole")
FIRST = 2
"""Steps in which everything is compiled."""


class StepClock(TrainerCallback):
    """Seconds of the processor of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begin = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._begin = processor_seconds()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.seconds.append(processor_seconds() - self._begin)


def processor_seconds() -> float:
    """Seconds of the processor that this process took, and those that it started, such as compilers."""
    return sum(os.times()[:4])


def measure(base: str, way: str, steps: int, batch: int) -> dict[str, Any]:
    """Train some steps in this process."""
    torch.set_num_threads(1)
    clock = StepClock()
    with tempfile.TemporaryDirectory() as out:
        args = DPOConfig(
            out,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=5e-5,
            bf16=False,
            use_cpu=True,
            acceleration="auto" if "auto" in way else "none",
            layout="branch",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            record=False,
            disable_tqdm=True,
        )
        lora = LoraConfig(r=8, target_modules="all-linear")
        rows = make_pairs("train", steps * batch, 0)
        trainer = DPOTrainer(base, args=args, train_dataset=rows, peft_config=lora, callbacks=[clock])
        compile_way(trainer, way)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    step = statistics.median(clock.seconds[FIRST:])
    return {
        "step_seconds": step,
        "compiling_seconds": sum(clock.seconds[:FIRST]) - FIRST * step,
        "seconds": clock.seconds,
        "graphs": dynamo.counters["stats"].get("unique_graphs", 0),
        "graph_breaks": sum(dynamo.counters["graph_break"].values()),
        "losses": losses,
    }


def compile_way(trainer: DPOTrainer, way: str) -> None:
    """Have the trainer's model, or each of its layers, compiled at the first call."""
    if way == "whole":
        trainer.model.compile(dynamic=True)
    elif way.startswith("layers"):
        model: Any = trainer.model.model
        for layer in model.get_base_model().model.layers:
            layer.compile(dynamic=True)


def main() -> None:
    """Measure all ways, or this process's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--limit", type=float, default=900, help="Seconds after which a way is given up.")
    parser.add_argument("--here", action="store_true")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.base, options.way[0], options.steps, options.batch)))
        return
    found: dict[str, Any] = {}
    for way in options.way:
        command = [sys.executable, "-m", "benchmarks.compiled", "--here", "--way", way, "--base", options.base]
        command += ["--steps", str(options.steps), "--batch", str(options.batch)]
        found[way] = run(command, options.limit)
        print(way, json.dumps(found[way]), flush=True)
        if options.save is not None:
            write_json(options.save, {"machine": describe_machine(), "commit": commit(), "ways": found})


def run(command: list[str], limit: float) -> dict[str, Any]:
    """Figures of one way, or the last line of its error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {limit:.0f} s"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 else {"error": lines[-1][:300]}


if __name__ == "__main__":
    main()
