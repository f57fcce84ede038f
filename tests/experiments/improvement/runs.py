"""Small runs for the tests: a tiny policy, prompts and scoring functions in the working directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_align.experiments.improvement.recipe import ImprovementRun, prepare_improvement
from hf_align.experiments.recipe import Recipe
from hf_align.progress import Advance, Silent

FUNCTIONS = """
def letters(prompts, responses):
    return [float(sum(each.isascii() and each.isalpha() for each in text)) for text in responses]

def lower(prompts, responses):
    return [float(sum(each.isascii() and each.islower() for each in text)) for text in responses]

def same(prompts, responses):
    return [1.0] * len(responses)
"""
SMALL: dict[str, Any] = {
    "train_dataset": "prompts.jsonl",
    "eval_dataset": "held_out.jsonl",
    "judge": "score.py:letters",
    "held_out_judge": "score.py:lower",
    "output_dir": "out",
    "rounds": 2,
    "num_samples": 3,
    "max_new_tokens": 6,
    "sampling_batch_size": 12,
    "judge_batch_size": 8,
    "lora": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]},
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "logging_steps": 100,
    "save_steps": 1,
    "save_total_limit": 1,
}


def write_inputs(prompts: int = 6, held_out: int = 12) -> None:
    """Write the prompts and functions into the working directory."""
    Path("score.py").write_text(FUNCTIONS)
    for name, count in (("prompts", prompts), ("held_out", held_out)):
        rows = [{"prompt": f"{name} {number}:"} for number in range(count)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    votes = [{"prompt": f"vote {n}", "chosen": "abc"[: 1 + n % 3], "rejected": "12"} for n in range(6)]
    Path("votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in votes))


def prepared(model: str, **values: Any) -> ImprovementRun:
    """A checked run of these values, on those of `SMALL`."""
    return prepare_improvement(Recipe({"model": model, **SMALL, **values}))


class Killed(BaseException):
    """Stands for a killed process."""


class KilledAtSeams(Silent):
    """Progress that ends the run at seams: where a line is said, or a part of a task is done, that never was before.

    Args:
        every: Each n-th new seam ends the run; 0: none does.
        seen: The seams that runs in this folder have passed.
    """

    def __init__(self, every: int, seen: set[tuple[str, str, int]]) -> None:
        self.every, self.seen, self.heading = every, seen, ""

    def _pass(self, label: str, done: int) -> None:
        seam = (self.heading, label, done)
        if seam not in self.seen:
            self.seen.add(seam)
            if self.every and len(self.seen) % self.every == 0:
                raise Killed

    def line(self, text: str, style: str = "") -> None:
        self.heading = text
        self._pass("", 0)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        yield lambda done, note="": self._pass(label, done)


def results_of(folder: str | Path) -> dict[str, bytes]:
    """Data, figures and weights below a folder by name; cards and histories, which hold times, are left out."""
    root = Path(folder)
    files = [path for path in root.rglob("*") if path.suffix in (".json", ".safetensors", ".html")]
    hidden = ("history.json", "model_card.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(files) if path.name not in hidden}
