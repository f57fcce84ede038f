"""Cost of the checks for NaN: `python -m benchmarks.nonfinite MODEL [--steps N]` prints figures as JSON.

It measures the time that `FiniteTrainer` adds to Trainer's methods, in a DPO run with LoRA on short rows and thus short
steps, and one check of all weights, made on each save in full fine-tuning.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from typing import Any

from peft import LoraConfig
from transformers import Trainer

from benchmarks.machine import describe_machine
from hf_align.models.finite import nonfinite_weight
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.nonfinite import FiniteTrainer

METHODS = ("training_step", "_get_grad_norm")
Seconds = dict[tuple[str, str], float]


def time_method(owner: type, name: str, seconds: Seconds) -> None:
    """Sum the time of a class's method, including the methods that it calls."""
    inner: Any = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            seconds[owner.__name__, name] += time.perf_counter() - start

    setattr(owner, name, timed)


def measure(model: str, steps: int) -> dict[str, Any]:
    """Train for some steps of four micro-batches and return the share of their time that the checks take."""
    seconds: Seconds = defaultdict(float)
    for owner in (FiniteTrainer, Trainer):
        for name in METHODS:
            time_method(owner, name, seconds)
    rows = [{"prompt": "The film was", "chosen": " a joy to see.", "rejected": " too long by half."}] * 16 * steps
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            folder,
            max_steps=steps,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=4,
            report_to="none",
            save_strategy="no",
            logging_steps=steps,
            disable_tqdm=True,
        )
        lora = LoraConfig(r=16, target_modules="all-linear")
        trainer = DPOTrainer(model, args=config, train_dataset=rows, peft_config=lora)  # type: ignore[arg-type]
        start = time.perf_counter()
        trainer.train()
        whole = time.perf_counter() - start
    look = sum(seconds["FiniteTrainer", name] - seconds["Trainer", name] for name in METHODS)
    weights = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    start = time.perf_counter()
    nonfinite_weight(weights)
    return {
        "step_seconds": whole / steps,
        "look_seconds": look / steps,
        "share": look / whole,
        "all_weights_seconds": time.perf_counter() - start,
        "parameters": sum(weight.numel() for weight in weights.values()),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    command = f"python -m benchmarks.nonfinite MODEL --steps {options.steps}"
    figures = measure(options.model, options.steps)
    print(json.dumps({"command": command, "machine": describe_machine(), **figures}, indent=1))


if __name__ == "__main__":
    main()
