"""Resuming a run that is over, and beginning anew."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import EarlyStoppingCallback, Trainer

from hf_align.errors import UserError
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.trainers.pairs import options, pairs
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

SAVING = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "learning_rate": 0.01}


def dpo(model: str, out: Path, callbacks: Any = None, **changes: Any) -> DPOTrainer:
    args = DPOConfig(**options(out, **{**SAVING, **changes}))
    return DPOTrainer(model, args=args, train_dataset=pairs(), eval_dataset=pairs(2), callbacks=callbacks)


def ppo(model: str, out: Path, **changes: Any) -> PPOTrainer:
    shape = {"per_device_train_batch_size": 4, "num_mini_batches": 2, "num_ppo_epochs": 1, "max_new_tokens": 3}
    return PPOTrainer(
        toy_model(),
        args=PPOConfig(**options(out, **{**SAVING, **shape, **changes})),
        train_dataset=varied_prompts(40),
        processing_class=toy_tokenizer(),
        reward=toy_reward(3),
    )


def stopping(model: str, out: Path, **changes: Any) -> DPOTrainer:
    """An evaluation a step, none of which is ever better than the first: patience is out at step 2 of 4."""
    best = {"metric_for_best_model": "rewards/chosen", "greater_is_better": True, "load_best_model_at_end": False}
    evaluating = {"eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0.0, **best}
    return dpo(model, out, [EarlyStoppingCallback(1)], **{**evaluating, **changes})


def weights(trainer: Trainer) -> list[Tensor]:
    return [weight.detach().clone() for weight in trainer.accelerator.unwrap_model(trainer.model).parameters()]


@pytest.mark.parametrize(
    ("build", "resumed_with", "ended"),
    [(dpo, {}, 2), (dpo, {"max_steps": 1}, 2), (ppo, {}, 2), (stopping, {"max_steps": 4}, 2)],
    ids=["max_steps", "max_steps lowered", "ppo", "stopped early"],
)
def test_resuming_a_run_that_is_over_trains_nothing(
    build: Any, resumed_with: dict[str, Any], ended: int, tiny_model_dir: str, tmp_path: Path, caplog: Any
):
    run = build(tiny_model_dir, tmp_path, **{"max_steps": 2, **(resumed_with if build is stopping else {})})
    run.train()
    assert run.state.global_step == ended
    again = build(tiny_model_dir, tmp_path, **{"max_steps": 2, **resumed_with})
    result = again.train(resume_from_checkpoint=True)
    assert again.state.global_step == ended and "Nothing is trained" in caplog.text
    assert all(map(torch.equal, weights(run), weights(again)))
    assert "train_loss" not in result.metrics, "there is no mean of no losses"
    if build is stopping:
        more = stopping(tiny_model_dir, tmp_path, **resumed_with)
        more.remove_callback(EarlyStoppingCallback)
        more.train(resume_from_checkpoint=True)
        assert more.state.global_step == 4


class OutOfMemoryOnce(DPOTrainer):
    """The second micro-batch of four rows finds no room."""

    tries = 0

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = super().compute_loss(model, inputs, *args, **kwargs)
        self.tries += 1
        if self.tries == 2:
            raise RuntimeError("CUDA out of memory.")
        return result


def test_metrics_begin_anew_with_each_run_and_each_try(tiny_model_dir: str, tmp_path: Path):
    changes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "save_strategy": "no"}
    args = DPOConfig(**options(tmp_path, max_steps=1, auto_find_batch_size=True, **changes))
    trainer = OutOfMemoryOnce(tiny_model_dir, args=args, train_dataset=pairs())
    trainer.train()
    three = dpo(tiny_model_dir, tmp_path, **{**changes, "per_device_train_batch_size": 3, "optim": "sgd"})
    three.train()
    logs, theirs = trainer.state.log_history[0], three.state.log_history[0]
    assert logs["logps/chosen"] == pytest.approx(theirs["logps/chosen"], abs=1e-3)
    assert logs["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def test_the_mean_loss_of_a_resumed_run_is_that_of_the_steps_it_took(tiny_model_dir: str, tmp_path: Path):
    dpo(tiny_model_dir, tmp_path, max_steps=2).train()
    resumed = dpo(tiny_model_dir, tmp_path, max_steps=4)
    result = resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    every = dpo(tiny_model_dir, tmp_path / "other", max_steps=4)
    every.train()
    losses = [log["loss"] for log in every.state.log_history if "loss" in log]
    assert result.training_loss == pytest.approx(sum(losses[1:]) / 3, abs=1e-6)


class Planted:
    """What would make a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_objects_in_a_checkpoint_are_never_loaded_nor_is_that_advised(name: str, tiny_model_dir: str, tmp_path: Path):
    dpo(tiny_model_dir, tmp_path, max_steps=1).train()
    torch.save({"state": Planted(tmp_path / "ran")}, tmp_path / "checkpoint-1" / name)
    with pytest.raises(UserError, match=f"checkpoint-1/{name} holds other Python objects") as refused:
        dpo(tiny_model_dir, tmp_path, max_steps=2).train(resume_from_checkpoint=True)
    shown = "".join(traceback.format_exception(refused.value))
    assert "weights_only" not in shown and not (tmp_path / "ran").exists()


def test_a_loss_scale_of_another_precision_is_left_alone(tiny_model_dir: str, tmp_path: Path):
    dpo(tiny_model_dir, tmp_path, max_steps=1).train()
    torch.save({"scale": 2.0, "_growth_tracker": 0}, tmp_path / "checkpoint-1" / "scaler.pt")
    resumed = dpo(tiny_model_dir, tmp_path, max_steps=2)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2


def test_a_file_of_another_kind_of_optimizer_is_told(tiny_model_dir: str, tmp_path: Path):
    dpo(tiny_model_dir, tmp_path, max_steps=1).train()
    torch.save({"state": {}}, tmp_path / "checkpoint-1" / "optimizer.pt")
    with pytest.raises(UserError, match=r"optimizer, schedule or generators in .* not those of such a run \(KeyErr"):
        dpo(tiny_model_dir, tmp_path, max_steps=2).train(resume_from_checkpoint=True)
