"""The trainers for policies and TRL's take a step on exported rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig as TrlDPOConfig
from trl.trainer.dpo_trainer import DPOTrainer as TrlDPOTrainer
from trl.trainer.reward_config import RewardConfig as TrlRewardConfig
from trl.trainer.reward_trainer import RewardTrainer as TrlRewardTrainer

from hf_align.feedback import PreferenceStore, Prompt
from hf_align.feedback.export import export_preferences
from hf_align.trainers import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer, RewardConfig, RewardTrainer
from tests.feedback.export.filled import Clock, add_task, filled
from tests.tiny import tiny_tokenizer

OPTIONS: list[dict[str, Any]] = [
    {},
    {"ties": "keep"},
    {"soft_labels": True},
    {"rows": "votes"},
    {"rows": "answers"},
]
TRAINERS: list[tuple[Any, Any]] = [
    (TrlDPOTrainer, TrlDPOConfig),
    (TrlRewardTrainer, TrlRewardConfig),
    (DPOTrainer, DPOConfig),
    (IPOTrainer, IPOConfig),
    (RewardTrainer, RewardConfig),
]


def conversations() -> Dataset:
    store = PreferenceStore("sqlite://", clock=Clock())
    for number in range(4):
        prompt = Prompt([{"role": "user", "content": f"Question {number}?"}], columns={"number": number})
        add_task(store, prompt, {"anna": 1.0}, texts=(f"A reply to {number}.", f"No idea of {number}."))
    return export_preferences(store, method="majority").rows


def step(trainer: Any, config: Any, rows: Dataset, folder: Path, model: str, **more: Any) -> None:
    args = config(str(folder), max_steps=1, report_to="none", use_cpu=True, per_device_train_batch_size=2, **more)
    made = trainer(model, args=args, train_dataset=rows, processing_class=tiny_tokenizer())
    made.train()
    assert made.state.global_step == 1


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "config"), TRAINERS, ids=lambda each: f"{each.__module__}.{each.__name__}")
def test_every_trainer_of_preferences_takes_a_step_on_every_kind_of_rows(
    trainer: Any, config: Any, tmp_path: Path, tiny_model_dir: str
):
    for number, options in enumerate(OPTIONS):
        rows = export_preferences(filled(6), method="majority", **options).rows
        step(trainer, config, rows, tmp_path / str(number), tiny_model_dir)
    step(trainer, config, conversations(), tmp_path / "chat", tiny_model_dir)


@pytest.mark.slow
def test_single_votes_are_drawn_by_the_reward_trainer(tmp_path: Path, tiny_model_dir: str):
    rows = export_preferences(filled(6), method="majority", rows="votes").rows
    step(RewardTrainer, RewardConfig, rows, tmp_path, tiny_model_dir, label_mode="draw")
