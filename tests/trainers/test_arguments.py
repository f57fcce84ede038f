"""Mistakes in Trainer's own options are named before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from hf_align import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer
from hf_align.errors import UserError

ROWS = [{"prompt": "a", "chosen": "b", "rejected": "c"}]


@pytest.mark.parametrize("config", [DPOConfig, RewardConfig, PPOConfig])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1e-4}, "learning_rate is -0.0001; give a number from 0"),
        ({"learning_rate": "1e-4"}, "learning_rate is '1e-4'; give a number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; give a number"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"dataloader_num_workers": -1}, "dataloader_num_workers is -1"),
        ({"adam_beta1": 1.0}, "adam_beta1 is 1.0; give a number from 0 and below 1"),
    ],
)
def test_numbers(config: Any, options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        config(str(tmp_path), use_cpu=True, **options)


@pytest.mark.parametrize("config", [DPOConfig, RewardConfig])
def test_something_is_trained(config: Any, tmp_path: Path):
    with pytest.raises(UserError, match="num_train_epochs is 0 and max_steps -1, so nothing would be trained"):
        config(str(tmp_path), use_cpu=True, num_train_epochs=0)
    assert config(str(tmp_path), use_cpu=True, num_train_epochs=0, max_steps=1).max_steps == 1


def made(trainer: Any, args: Any) -> Any:
    more: dict[str, Any] = {}
    if trainer is PPOTrainer:
        more["reward"] = lambda prompts, responses: [0.0] * len(prompts)
    make: Any = trainer
    return make("no/such/model", args=args, train_dataset=ROWS, processing_class=object(), **more)


PAIRS = [(DPOTrainer, DPOConfig), (RewardTrainer, RewardConfig), (PPOTrainer, PPOConfig)]


@pytest.mark.parametrize(("trainer", "config"), PAIRS)
def test_another_class_of_arguments(trainer: Any, config: Any, tmp_path: Path):
    other = PPOConfig if config is not PPOConfig else DPOConfig
    for args in (
        TrainingArguments(str(tmp_path), use_cpu=True),
        other(str(tmp_path), use_cpu=True),
        {"output_dir": "x"},
    ):
        with pytest.raises(UserError, match=rf"args is a {type(args).__name__}; give a {config.__name__}"):
            made(trainer, args)


@pytest.mark.parametrize(("trainer", "config"), PAIRS)
def test_evaluation_needs_data(trainer: Any, config: Any, tmp_path: Path):
    args = config(str(tmp_path / "out"), use_cpu=True, eval_strategy="steps", eval_steps=1)
    with pytest.raises(UserError, match="eval_strategy is 'steps' and there is no eval_dataset"):
        made(trainer, args)
    assert not (tmp_path / "out").exists()


def test_peft_config_is_no_dict(tiny_model_dir: str, tmp_path: Path):
    trainer: Any = DPOTrainer
    args = DPOConfig(str(tmp_path), use_cpu=True)
    with pytest.raises(UserError, match="peft_config is a dict; give a LoraConfig"):
        trainer(tiny_model_dir, args=args, train_dataset=ROWS, peft_config={"r": 4})
