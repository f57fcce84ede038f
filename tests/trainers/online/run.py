"""A short online run on the toy language, to be stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import TrainerCallback

from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.trainer import OnlineDPOTrainer
from tests.trainers.pairs import options
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

STEPS, SAVE_EVERY = 12, 3


class Stopped(Exception):
    """The end of a run that is resumed in the same process."""


class StopAt(TrainerCallback):
    """Leave when a step begins."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Stopped


def build(out: Path, seed: int, callbacks: list[TrainerCallback] | None = None) -> OnlineDPOTrainer:
    """Rollouts of 4 steps, checkpoints every 3: they fall anywhere in a rollout. Odd seeds train adapters with IPO."""
    adapter = bool(seed % 2)
    changes: dict[str, Any] = {
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": 2,
        "num_samples": 3 if adapter else 2,
        "num_mini_batches": 2,
        "num_epochs": 2,
        "max_new_tokens": 3,
        "max_steps": STEPS,
        "save_strategy": "steps",
        "save_steps": SAVE_EVERY,
        "optim": "adamw_torch",
        "learning_rate": 0.01,
        "lr_scheduler_type": "linear",
        "loss_type": "ipo" if adapter else "sigmoid",
        "labels": "soft" if adapter else "hard",
        "pairs": "all" if adapter else "best_worst",
        "early_stop_kl": 0.05,
        "seed": seed,
    }
    return OnlineDPOTrainer(
        toy_model(seed),
        args=OnlineDPOConfig(**options(out, **changes)),
        train_dataset=varied_prompts(11),
        processing_class=toy_tokenizer(),
        reward=toy_reward(3),
        callbacks=callbacks,
        peft_config=LoraConfig(r=2, target_modules="all-linear") if adapter else None,
    )
