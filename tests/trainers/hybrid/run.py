"""Short hybrid runs on the toy language, and kills at any step and before any file of theirs is put in its place."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback

from hf_align.trainers import HybridConfig, HybridTrainer, Stage
from tests.trainers.pairs import options
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer

LENGTH = 3
ROWS = [("a", " b", " c"), ("a b", " d b", " a"), ("b c", " a", " d d"), ("d", " c", " b a"), ("c", " d", " b")]


class Killed(BaseException):
    """Ends a run in this process as a kill would: nothing handles it."""


def rows() -> Dataset:
    """Pairs, whose prompts serve PPO, too."""
    return Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in ROWS])


def demonstrations() -> Dataset:
    return rows().select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")


def shared(**changes: Any) -> dict[str, Any]:
    """Options of any stage: two steps, a checkpoint at each."""
    defaults: dict[str, Any] = {"max_steps": 2, "optim": "adamw_torch", "learning_rate": 0.01, "save_strategy": "steps"}
    values = {**options("", **defaults), "save_steps": 1, **changes}
    return {name: value for name, value in values.items() if name not in ("output_dir", "seed")}


def sampling(**changes: Any) -> dict[str, Any]:
    """Options of PPO and online DPO: rollouts of two steps."""
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_samples": 2,
        "num_mini_batches": 2,
        "max_new_tokens": LENGTH,
        "max_steps": 4,
    }
    return shared(**{**defaults, **changes})


def ppo(**changes: Any) -> dict[str, Any]:
    """One pass over each rollout."""
    return sampling(**{"num_ppo_epochs": 1, **changes})


def three() -> list[Stage]:
    """DPO, PPO, IPO."""
    return [Stage("dpo", shared()), Stage("ppo", ppo()), Stage("ipo", shared())]


def save_toy(folder: Path, seed: int = 0) -> str:
    """A toy model's folder."""
    toy_model(seed).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return str(folder)


def lora(rank: int = 2) -> LoraConfig:
    return LoraConfig(r=rank, target_modules="all-linear", lora_dropout=0.1)


def hybrid(model: Any, out: Path, stages: list[Any] | None = None, **changes: Any) -> HybridTrainer:
    """A trainer of these stages, DPO, PPO and IPO by default, on an adapter."""
    names = ("seed", "keep", "kl_budget", "kl_every", "kl_prompts", "kl_max_new_tokens")
    config = {name: changes.pop(name) for name in names if name in changes}
    given: dict[str, Any] = {
        "train_dataset": rows(),
        "processing_class": toy_tokenizer(),
        "reward": toy_reward(LENGTH),
        "peft_config": lora(),
    }
    args = HybridConfig(str(out), **{"seed": 3, "kl_max_new_tokens": LENGTH, **config})
    return HybridTrainer(model, three() if stages is None else stages, args, **{**given, **changes})


def weights_of(folder: Path) -> dict[str, bytes]:
    """All weights of the final policy and its heads, by file."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


class KilledAtRenames:
    """Ends the process, or this run, before the n-th file or folder is put in its place.

    Args:
        at: Number of the rename, from 1; 0: none.
        process: By SIGKILL, instead of `Killed`.
    """

    def __init__(self, at: int, *, process: bool = False) -> None:
        self.at, self.process, self.count, self.replace = at, process, 0, os.replace

    def __enter__(self) -> KilledAtRenames:
        os.replace = self._replaced  # type: ignore[assignment]
        return self

    def __exit__(self, *error: object) -> None:
        os.replace = self.replace

    def _replaced(self, *args: Any, **kwargs: Any) -> None:
        self.count += 1
        if self.count == self.at:
            if self.process:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed
        self.replace(*args, **kwargs)


class KillAtStep(TrainerCallback):
    """Ends the run when the n-th step of all stages begins, in this process."""

    def __init__(self, step: int) -> None:
        self.step, self.count = step, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.count += 1
        if self.count == self.step:
            raise Killed
