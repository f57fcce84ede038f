"""Small preference data sets that all trainer tests use."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any

from datasets import Dataset

ROWS = [
    ("Review a movie.", "A warm, funny film.", "Dull from start to end, and far too long.", 2.5),
    ("Review this camera.", "Sharp pictures and a battery that lasts.", "It broke after a week.", 3.0),
    ("Write a tweet.", "So happy to see you all today!", "Worst day ever.", 1.5),
    (
        "Write one sentence about a movie you have seen this year.",
        "Great.",
        "It was fine, I guess, but nothing more.",
        0.5,
    ),
    ("Review a phone.", "I love it, and so does my mother.", "Bad.", 2.0),
    ("Write a tweet about lunch.", "Best soup in town", "cold fries again, thanks a lot", 1.0),
    ("Review a film.", "I laughed and cried.", "I left after ten minutes.", 2.0),
    ("Review a book.", "A joy to read.", "Not for me.", 1.0),
]


def pairs(count: int = len(ROWS), *, margin: bool = False, weights: list[float] | None = None) -> Dataset:
    """Conversational rows."""
    return copy(_pairs(count, margin, tuple(weights or ())))


@cache  # a data set takes 20 ms to make, and hundreds of tests ask for it
def _pairs(count: int, margin: bool, weights: tuple[float, ...]) -> Dataset:
    rows: list[dict[str, Any]] = []
    for number in range(count):
        prompt, chosen, rejected, gap = ROWS[number % len(ROWS)]
        row: dict[str, Any] = {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        if margin:
            row["margin"] = gap
        if weights:
            row["weight"] = weights[number]
        rows.append(row)
    return Dataset.from_list(rows)


def text_pairs(count: int, *, margin: bool = False) -> Dataset:
    """Text rows, which TRL tokenises as we do (of conversations it also trains the newline behind the end)."""
    rows = [
        {"prompt": f"Question: {prompt} Answer:", "chosen": f" {chosen}", "rejected": f" {rejected}", "margin": gap}
        for prompt, chosen, rejected, gap in ROWS[:count]
    ]
    data = Dataset.from_list(rows)
    return data if margin else data.remove_columns("margin")


def options(output_dir: Any, **changes: Any) -> dict[str, Any]:
    """Config arguments for a short, quiet, exact run: plain SGD in float32, every step logged."""
    defaults = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 2,
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }
    return {**defaults, **changes}
