"""Features of all trainers: accumulation, metrics, layouts, checkpoints."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, EvalPrediction, MambaConfig, TrainerCallback

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.trainers.accelerated import follow_log_level
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.trainers.pairs import options, pairs
from tests.trainers.test_dpo import lora, weights_of


def dpo(
    folder: Any, out: Path, rows: Any = None, trainer_options: dict[str, Any] | None = None, **changes: Any
) -> DPOTrainer:
    rows = pairs() if rows is None else rows
    return DPOTrainer(folder, args=DPOConfig(**options(out, **changes)), train_dataset=rows, **(trainer_options or {}))


def same_weights(left: Any, right: Any, **tolerance: Any) -> None:
    theirs = weights_of(right)
    for name, weight in weights_of(left).items():
        torch.testing.assert_close(weight, theirs[name], msg=name, **(tolerance or {"atol": 1e-5, "rtol": 1e-5}))


@pytest.mark.parametrize(
    "weights", [pytest.param(None, marks=pytest.mark.slow), [1.0, 3.0, 0.5, 2.0, 1.0, 1.0, 0.0, 4.0]]
)
def test_accumulation_changes_nothing(tiny_model_dir: str, tmp_path: Path, weights: list[float] | None):
    rows = pairs(8, weights=weights)
    runs = []
    for size, accumulation in ((8, 1), (2, 4), (3, 3)):  # 3 does not divide 8: the last micro-batch is smaller
        trainer = dpo(
            tiny_model_dir,
            tmp_path,
            rows,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            loss_type="ipo",
            max_steps=2,
            learning_rate=0.01,
        )
        trainer.train()
        runs.append(trainer)
    for other in runs[1:]:
        same_weights(runs[0].model, other.model)
        for name in ("loss", "rewards/margins", "logps/chosen", "rewards/accuracies"):
            for ours, theirs in zip(runs[0].state.log_history[:2], other.state.log_history[:2], strict=True):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name


def test_packing_changes_nothing(tiny_model_dir: str, tmp_path: Path):
    runs = []
    variants: list[dict[str, Any]] = [{}, {"row_tokens": 256}, {"layout": "separate"}]
    for changes in variants:
        trainer = dpo(
            tiny_model_dir, tmp_path, per_device_train_batch_size=8, max_steps=2, learning_rate=0.01, **changes
        )
        trainer.train()
        runs.append(trainer)
    same_weights(runs[0].model, runs[1].model)
    same_weights(runs[0].model, runs[2].model)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_evaluation_does_not_depend_on_the_batch_size(tiny_model_dir: str, tmp_path: Path, batch: int):
    seen: dict[str, np.ndarray] = {}

    def own(prediction: EvalPrediction) -> dict[str, float]:
        seen["predictions"] = np.asarray(prediction.predictions)
        return {"own": 1.0}

    torch.manual_seed(0)
    trainer = RewardTrainer(
        tiny_model_dir,
        args=RewardConfig(**options(tmp_path, per_device_eval_batch_size=batch)),
        eval_dataset=pairs(8, margin=True, weights=[1, 2, 1, 1, 0.5, 1, 1, 3]),
        compute_metrics=own,
    )
    metrics = trainer.evaluate()
    rewards = seen["predictions"]
    assert rewards.shape == (8, 2) and metrics["eval_own"] == 1.0
    assert metrics["eval_margin"] == pytest.approx((rewards[:, 0] - rewards[:, 1]).mean(), abs=1e-5)
    assert metrics["eval_min_reward"] == pytest.approx(rewards.min(), abs=1e-5)
    margin, weight = np.array([2.5, 3, 1.5, 0.5, 2, 1, 2, 1]), np.array([1, 2, 1, 1, 0.5, 1, 1, 3])
    losses = margin * np.log1p(np.exp(rewards[:, 1] - rewards[:, 0]))
    assert metrics["eval_loss"] == pytest.approx((losses * weight).sum() / weight.sum(), abs=1e-5)


def test_a_model_without_attention_masks_falls_back_to_plain_rows(tiny_model_dir: str, tmp_path: Path, caplog):
    torch.manual_seed(0)
    tokenizer_model = load_policy(tiny_model_dir)
    config = MambaConfig(
        vocab_size=tokenizer_model.config.vocab_size, hidden_size=32, num_hidden_layers=2, state_size=4
    )
    from hf_align.models.sources import load_tokenizer

    runs = []
    for layout in ("auto", "separate"):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        changes = {"layout": layout, "max_steps": 2, "learning_rate": 0.01}
        trainer = dpo(model, tmp_path, trainer_options={"processing_class": load_tokenizer(tiny_model_dir)}, **changes)
        with caplog.at_level("WARNING", logger="hf_align"):
            trainer.train()
        runs.append(trainer)
    assert "using one row per prompt + response" in caplog.text or "such batches use one row" in caplog.text
    same_weights(runs[0].model, runs[1].model)


class Stop(TrainerCallback):
    """End a run early, like a kill."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize("adapter", [True, False])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tiny_model_dir: str, tmp_path: Path, adapter: bool):
    def run(out: Path, **extra: Any) -> DPOTrainer:
        trainer_options = {**({"peft_config": lora()} if adapter else {}), **extra}
        return dpo(
            tiny_model_dir,
            out,
            trainer_options=trainer_options,
            max_steps=3,
            optim="adamw_torch",
            learning_rate=1e-3,
            lr_scheduler_type="linear",
            save_strategy="steps",
            save_steps=1,
            save_total_limit=2,
        )

    whole = run(tmp_path / "whole")
    whole.train()
    assert sorted(os.listdir(tmp_path / "whole")) == ["checkpoint-2", "checkpoint-3", "run.sqlite"]
    run(tmp_path / "cut", callbacks=[Stop(2)]).train()
    (tmp_path / "cut" / "unfinished-checkpoint" / "checkpoint-5").mkdir(parents=True)  # left behind by a kill
    resumed = run(tmp_path / "cut")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3
    same_weights(whole.model, resumed.model, atol=0, rtol=0)
    assert "unfinished-checkpoint" not in os.listdir(tmp_path / "cut")


class FullDisk(DPOTrainer):
    """A trainer whose checkpoints run out of disk space."""

    def _save_rng_state(self, output_dir: str) -> None:
        raise OSError("disk full")


def test_a_checkpoint_appears_whole_or_not_at_all(tiny_model_dir: str, tmp_path: Path):
    args = DPOConfig(**options(tmp_path, save_strategy="steps", save_steps=1))
    trainer = FullDisk(tiny_model_dir, args=args, train_dataset=pairs())
    with pytest.raises(OSError, match="disk full"):
        trainer.train()
    assert [name for name in os.listdir(tmp_path) if name.startswith("checkpoint")] == []


def test_the_best_checkpoint_is_kept_and_loaded(tiny_model_dir: str, tmp_path: Path):
    trainer = DPOTrainer(
        tiny_model_dir,
        args=DPOConfig(
            **options(
                tmp_path,
                max_steps=4,
                learning_rate=5.0,  # far too high: the first checkpoint is the best
                save_strategy="steps",
                save_steps=1,
                eval_strategy="steps",
                eval_steps=1,
                save_total_limit=1,
                load_best_model_at_end=True,
                metric_for_best_model="eval_logps/chosen",
                greater_is_better=True,
            )
        ),
        train_dataset=pairs(),
        eval_dataset=pairs(4),
    )
    trainer.train()
    best = max(
        (log["eval_logps/chosen"], log["step"]) for log in trainer.state.log_history if "eval_logps/chosen" in log
    )
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best[1]}")
    assert trainer.evaluate()["eval_logps/chosen"] == pytest.approx(best[0], abs=1e-3)


def test_what_is_saved_loads_with_plain_transformers_and_holds_no_pickle(tiny_model_dir: str, tmp_path: Path):
    trainer = dpo(tiny_model_dir, tmp_path)
    trainer.train()
    trainer.save_model()
    names = os.listdir(tmp_path)
    assert "model.safetensors" in names and "tokenizer.json" in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    same_weights(again, trainer.model.model, atol=0, rtol=0)


def test_recomputing_activations_changes_nothing(tiny_model_dir: str, tmp_path: Path):
    runs = []
    for way in ("none", "selective", "full"):
        trainer = dpo(
            tiny_model_dir, tmp_path, trainer_options={"peft_config": lora()}, max_steps=3, activation_recompute=way
        )
        trainer.train()
        recomputing = {
            m.gradient_checkpointing for m in trainer.model.modules() if hasattr(m, "gradient_checkpointing")
        }
        assert (True in recomputing) == (way != "none")
        runs.append(trainer)
    same_weights(runs[0].model, runs[1].model, atol=0, rtol=0)
    same_weights(runs[0].model, runs[2].model)


def test_activation_recompute_and_gradient_checkpointing_say_the_same(tmp_path: Path):
    assert DPOConfig(str(tmp_path), gradient_checkpointing=True).activation_recompute == "full"
    assert DPOConfig(str(tmp_path), activation_recompute="full").gradient_checkpointing
    assert not DPOConfig(str(tmp_path), activation_recompute="selective").gradient_checkpointing
    with pytest.raises(UserError, match="'selective' doesn't go with gradient_checkpointing"):
        DPOConfig(str(tmp_path), activation_recompute="selective", gradient_checkpointing=True)
    with pytest.raises(UserError, match="activation_recompute is True"):
        DPOConfig(str(tmp_path), activation_recompute=True)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="about machines without a GPU")
def test_bf16_on_a_cpu_needs_no_further_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    assert DPOConfig(str(tmp_path)).bf16 is True, "what the machine is fast at"
    assert DPOConfig(str(tmp_path), bf16=True).use_cpu, "transformers refuses bf16 without it"
    assert DPOConfig(str(tmp_path), bf16=False).bf16 is False


@pytest.mark.parametrize(("level", "shown"), [("info", True), ("error", False)])
def test_log_level_goes_for_this_package_too(
    level: str, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    package = logging.getLogger("hf_align")
    monkeypatch.setattr(package, "handlers", [])
    monkeypatch.setattr(package, "propagate", False)  # as in a process that has no handlers
    before = package.level
    try:
        follow_log_level(DPOConfig(**options(tmp_path, log_level=level)))
        logging.getLogger("hf_align.trainers").info("acceleration: none")
    finally:
        package.setLevel(before)
    assert ("acceleration: none" in capsys.readouterr().err) is shown
