"""Files of finished runs, with figures that tests can compute with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROMPTS = 40
CELLS = [(dataset, label, seed) for dataset in ("clean", "flipped") for label in ("dpo", "ppo") for seed in (0, 1, 2)]
GRID: dict[str, Any] = {
    "model": "tiny",
    "judge": "vader",
    "budget": {"samples": 64},
    "datasets": {"clean": {"pairs": "p"}, "flipped": {"pairs": "p", "flip": 0.25}},
}


def write_run(
    out: Path, dataset: str | None, label: str, seed: int, figures: Mapping[str, Sequence[Any] | Any], **more: Any
) -> Path:
    """Write a run's result.json; `more` replaces or adds to its content."""
    folder = out / (label if dataset is None else f"{dataset}/{label}") / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "dataset": dataset,
        "algorithm": label,
        "label": label,
        "seed": seed,
        "options": {},
        "rows": 64,
        "steps": 8,
        "training_seconds": 10.0 + seed,
        "peak_memory_bytes": 2**30,
        "device": "CPU",
        "stopped_by": "samples",
        "history": [{"step": step, "objective/scores": 0.1 * step + seed} for step in (4, 8)],
        "figures": {name: np.asarray(values).tolist() for name, values in figures.items()},
        "responses": [],
    }
    (folder / "result.json").write_text(json.dumps({**content, **more}))
    return folder


def figures_of(rng: np.random.Generator, gain: float = 0.0, kl: float = 0.0, prompts: int = PROMPTS) -> dict[str, Any]:
    """Plausible figures."""
    return {
        "judge": rng.normal(gain, 0.15, prompts),
        "reward": rng.normal(2 * gain, 1.0, prompts),
        "kl": rng.normal(kl, 0.2, prompts),
        "length": rng.integers(5, 25, prompts),
        "finished": rng.integers(0, 2, prompts),
    }


def write_grid(out: Path, seeds: Sequence[int] = (0, 1, 2)) -> Path:
    """Write a grid of two algorithms, best-of-n and two data sets, PPO without its last run on flipped labels."""
    rng = np.random.default_rng(7)
    for seed in seeds:
        write_run(out, None, "base", seed, figures_of(rng), algorithm="base", training_seconds=None)
        for dataset, lost in (("clean", 0.0), ("flipped", 0.2)):
            write_run(out, dataset, "dpo", seed, figures_of(rng, 0.5 - 2 * lost, 4.0))
            if (dataset, seed) != ("flipped", seeds[-1]):
                write_run(out, dataset, "ppo", seed, figures_of(rng, 0.3 - lost, 0.5))
    failed = out / "flipped" / "ppo" / str(seeds[-1])
    failed.mkdir(parents=True)
    (failed / "failed.json").write_text(json.dumps({"reason": "the loss is NaN in step <3>"}))
    for seed in seeds[:2]:
        by_n = {str(n): figures_of(rng, 0.1 * np.log(n), np.log(n) - (n - 1) / n) for n in (1, 4, 16)}
        by_n = {n: {name: np.asarray(values).tolist() for name, values in each.items()} for n, each in by_n.items()}
        write_run(out, "clean", "best-of-n", seed, by_n["16"], by_n=by_n, rows=0, steps=0, history=[])
    return out
