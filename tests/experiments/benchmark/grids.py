"""Small grids for the tests: a tiny policy, pairs and scoring functions in the working directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hf_align.experiments.benchmark.planned import Benchmark
from hf_align.experiments.benchmark.prepare import prepare_benchmark
from hf_align.experiments.recipe import Recipe

FUNCTIONS = """
def letters(prompts, responses):
    return [float(sum(each.isascii() and each.isalpha() for each in text)) for text in responses]

def lower(prompts, responses):
    return [float(sum(each.isascii() and each.islower() for each in text)) for text in responses]
"""
SMALL: dict[str, Any] = {
    "output_dir": "out",
    "judge": "score.py:lower",
    "prompts": "held_out.jsonl",
    "max_new_tokens": 4,
    "budget": {"samples": 8, "passes": 2},
    "lora": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
    "options": {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "num_samples": 2,
        "acceleration": "none",
        "record": False,
        "save_strategy": "no",
    },
    "datasets": {"clean": {"pairs": "pairs.jsonl", "reward": "score.py:letters"}},
    "algorithms": {"dpo": {}},
}


def write_inputs() -> None:
    """Write pairs, held-out prompts and scoring functions into the working directory."""
    Path("score.py").write_text(FUNCTIONS)
    pairs = [{"prompt": f"p{n} ", "chosen": "abc"[: 1 + n % 3], "rejected": "12"} for n in range(20)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    Path("held_out.jsonl").write_text("".join(json.dumps({"prompt": f"h{n} "}) + "\n" for n in range(5)))


def prepared(model: str, **values: Any) -> Benchmark:
    """A checked grid of these values, on those of `SMALL`."""
    return prepare_benchmark(Recipe({"model": model, **SMALL, **values}))


def result_of(place: str, out: str = "out") -> dict[str, Any]:
    """The result of a run."""
    return json.loads(Path(out, place, "result.json").read_text())
