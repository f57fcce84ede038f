"""Specification of one benchmark process: written by the command as JSON, read by `benchmarks.child`.

Nothing here imports torch or a training library: the peer's process must import only its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Task = Literal["dpo", "reward", "ppo"]
Side = Literal["ours", "trl"]
TRL_VERSIONS: dict[Task, str] = {"dpo": "1.16.0", "reward": "1.16.0", "ppo": "1.12.0"}
"""TRL removed PPO in 1.13."""


@dataclass(frozen=True)
class Spec:
    """One run of one side, in a separate process.

    Attributes:
        task: The training task.
        side: Side whose trainer runs.
        model: Folder or Hub id of the language model.
        rows: JSON file with the data: preference rows, or for PPO prompts.
        out: Folder for `result.json` and other files of the run.
        dtype: "fp32", or "bf16": frozen weights in bfloat16 and autocast on both sides.
        full: Train all weights (kept in float32) instead of an adapter.
        checkpointing: Full gradient checkpointing.
        recompute: Our selective recomputation of activations.
        batch: Pairs per step, or for PPO responses per rollout.
        accumulation: Micro-batches per batch.
        steps: Timed optimizer steps (PPO: rollouts with their updates).
        warmup: Untimed steps before them.
        max_new_tokens: Tokens of a PPO response.
        ppo_epochs: Passes over a rollout.
        num_samples: Responses per prompt (ours only; TRL has one).
        reward: Folder of the PPO's reward model.
        responses: JSON file with the first rollout: TRL writes it, ours trains its first, untimed step on it.
        quantization: "8bit" or "4bit" base (ours only).
        memory_cap: Limit of the process's GPU memory in bytes. None: no limit.
        profile: Whether to profile the last step.
        seed: Seed of weights, order and sampling.
    """

    task: Task
    side: Side
    model: str
    rows: str
    out: str
    dtype: Literal["fp32", "bf16"] = "fp32"
    full: bool = False
    checkpointing: bool = False
    recompute: bool = False
    batch: int = 4
    accumulation: int = 1
    steps: int = 2
    warmup: int = 1
    max_new_tokens: int = 24
    ppo_epochs: int = 4
    num_samples: int = 1
    reward: str | None = None
    responses: str | None = None
    quantization: Literal["8bit", "4bit"] | None = None
    memory_cap: int | None = None
    profile: bool = False
    seed: int = 0

    def write(self) -> Path:
        """Save to `out/spec.json`, and return that path."""
        path = Path(self.out) / "spec.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: str | Path) -> Spec:
        """Read the file that `write` saved."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))

    @property
    def total_steps(self) -> int:
        """Number of steps including the warm-up."""
        return self.warmup + self.steps
