"""A short PPO run on the toy language, to be killed and resumed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import TrainerCallback

from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.trainers.pairs import options
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

STEPS, SAVE_EVERY = 12, 3


class Killed(BaseException):
    """Ends a run in this process as a kill would: nothing handles it."""


class KillAt(TrainerCallback):
    """SIGKILL when a step begins: no handler, no clean-up. Or `Killed`, without a process of its own."""

    def __init__(self, step: int, *, process: bool = True):
        self.step, self.process = step, process

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            if self.process:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed


def build(out: Path, seed: int, callbacks: list[TrainerCallback] | None = None, **changes: Any) -> PPOTrainer:
    """Rollouts of 4 steps, checkpoints every 3: they fall anywhere in a rollout.

    Odd seeds train adapters, with a reference that moves after each rollout.
    """
    adapter = bool(seed % 2)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_samples": 2,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "max_new_tokens": 3,
        "max_steps": STEPS,
        "save_strategy": "steps",
        "save_steps": SAVE_EVERY,
        "optim": "adamw_torch",
        "learning_rate": 0.01,
        "lr_scheduler_type": "linear",
        "scale_rewards": True,
        "target_kl": 0.05,
        "kl_horizon": 50,
        "early_stop_kl": 0.02,
        "value_model": "adapter" if adapter and "baseline" not in changes else "shared",
        "sync_ref_model": adapter,
        "seed": seed,
        **({"ref_model_sync_steps": 4} if adapter else {}),
        **changes,
    }
    return PPOTrainer(
        toy_model(seed),
        args=PPOConfig(**options(out, **settings)),
        train_dataset=varied_prompts(11),
        processing_class=toy_tokenizer(),
        reward=toy_reward(3),
        callbacks=callbacks,
        peft_config=LoraConfig(r=2, target_modules="all-linear") if adapter else None,
    )
