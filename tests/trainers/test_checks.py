"""Mistakes in Trainer's own options are reported before training, most before a model is loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from hf_align import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer
from hf_align.errors import UserError
from hf_align.trainers import checks as arguments
from hf_align.trainers.sft import SFTConfig
from tests.tiny import save_tiny
from tests.trainers.pairs import options, text_pairs

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


@pytest.mark.parametrize("config", [DPOConfig, PPOConfig, SFTConfig])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_steps": 0}, "save_steps is 0; give a whole number from 1, or a share of all steps below 1; save_strat"),
        ({"logging_steps": 0}, "logging_steps is 0; give a whole number from 1"),
        ({"eval_strategy": "steps", "eval_steps": 0}, "eval_steps is 0; give a whole number from 1"),
        ({"save_steps": 1.5}, "save_steps is 1.5; give a whole number from 1"),
        ({"gradient_checkpointing_kwargs": "nope"}, "gradient_checkpointing_kwargs: the text is not valid JSON"),
        ({"gradient_checkpointing_kwargs": ["a"]}, r"gradient_checkpointing_kwargs is \['a'\]; give a mapping"),
        ({"lr_scheduler_kwargs": "{"}, "lr_scheduler_kwargs: the text is not valid JSON"),
        ({"deepspeed": "nowhere.json"}, "deepspeed: nowhere.json doesn't exist; name a JSON file"),
        ({"deepspeed": "broken.json"}, "deepspeed: broken.json is not valid JSON: Expecting value"),
        ({"deepspeed": "list.json"}, "deepspeed: list.json holds a list; give a mapping"),
        ({"deepspeed": {"zero_optimization": {}}}, "deepspeed is not installed; pip install deepspeed"),
        ({"fsdp_config": "nowhere.json"}, "fsdp_config: nowhere.json doesn't exist"),
        ({"ddp_backend": "nonsense"}, "ddp_backend is 'nonsense'; use nccl, gloo"),
        ({"ddp_backend": "gloo"}, "ddp_backend is 'gloo' and this is a single process"),
    ],
)
def test_intervals_mappings_and_backends(
    config: Any, options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as if it were not installed
    Path("broken.json").write_text("oops")
    Path("list.json").write_text("[]")
    with pytest.raises(UserError, match=message):
        config("out", use_cpu=True, **options)


def test_what_is_right_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "accelerator.json"
    file.write_text('{"non_blocking": true}')
    args: Any = DPOConfig(
        str(tmp_path),
        use_cpu=True,
        save_strategy="no",
        save_steps=0,
        eval_steps=0,
        logging_steps=0.25,
        accelerator_config=str(file),
        gradient_checkpointing_kwargs='{"use_reentrant": false}',
    )
    assert args.accelerator_config.non_blocking
    assert args.gradient_checkpointing_kwargs == {"use_reentrant": False}
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments._check_backend("gloo")


@pytest.mark.parametrize("config", [DPOConfig, RewardConfig])
def test_something_is_trained(config: Any, tmp_path: Path):
    with pytest.raises(UserError, match="max_steps is 0, so nothing would be trained; give a number from 1, or leave"):
        config(str(tmp_path), use_cpu=True, max_steps=0)
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


@pytest.mark.parametrize(("trainer", "config"), PAIRS)
def test_the_best_model_needs_a_metric_and_evaluations(trainer: Any, config: Any, tmp_path: Path):
    args = config(str(tmp_path), use_cpu=True, save_strategy="best")
    with pytest.raises(UserError, match="save_strategy is 'best' and metric_for_best_model is missing"):
        made(trainer, args)
    args = config(str(tmp_path), use_cpu=True, save_strategy="best", metric_for_best_model="loss")
    with pytest.raises(UserError, match="save_strategy is 'best' and eval_strategy 'no', so nothing would ever be"):
        made(trainer, args)


def small(trainer: Any, config: Any, out: Path, compute_metrics: Any = None, data: Any = None, **changes: Any) -> Any:
    """A trainer of two steps that evaluates at each."""
    changes = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 2, **changes}
    more: dict[str, Any] = {}
    if trainer is PPOTrainer:
        more["reward"] = lambda prompts, responses: [float(len(response)) for response in responses]
        more["judge"] = lambda prompts, responses: [float(response.count("a")) for response in responses]
        changes |= {"max_new_tokens": 2, "num_ppo_epochs": 1}
    return trainer(
        save_tiny(out / "model"),
        args=config(**options(out / "out", **changes)),
        train_dataset=text_pairs(4),
        eval_dataset=data or text_pairs(2),
        compute_metrics=compute_metrics,
        **more,
    )


@pytest.mark.parametrize(("trainer", "config"), PAIRS)
def test_the_best_metric_is_one_that_evaluations_give(trainer: Any, config: Any, tmp_path: Path):
    with pytest.raises(
        UserError, match="metric_for_best_model is 'nope', which evaluations here don't return; use"
    ) as caught:
        small(trainer, config, tmp_path, metric_for_best_model="nope")
    assert all(name in str(caught.value) for name in config.eval_metrics)
    best = f"eval_{config.eval_metrics[-1]}"
    made = small(trainer, config, tmp_path, metric_for_best_model=best, save_strategy="best")
    made.train()
    assert made.state.best_metric is not None
    given = {name.removeprefix("eval_") for name in made.evaluate()} - {"epoch"}
    assert given == {*config.eval_metrics, *arguments.SPEED_METRICS}


def test_the_best_metric_of_several_data_sets_and_of_your_own(tmp_path: Path):
    data = {"first": text_pairs(2), "second": text_pairs(2)}
    with pytest.raises(UserError, match=r"'eval_loss', which .* use first_loss, .* or second_steps_per_second"):
        small(DPOTrainer, DPOConfig, tmp_path, data=data, metric_for_best_model="eval_loss")
    small(DPOTrainer, DPOConfig, tmp_path, data=data, metric_for_best_model="second_loss")
    small(DPOTrainer, DPOConfig, tmp_path, lambda prediction: {"own": 1.0}, metric_for_best_model="own")


def test_a_file_is_no_place_to_save_in(tmp_path: Path):
    trainer = small(DPOTrainer, DPOConfig, tmp_path)
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with pytest.raises(UserError, match=f"save_model: can't write to .*{place}: file is a file; name another fol"):
            trainer.save_model(str(tmp_path / place))


@pytest.mark.parametrize("config", [DPOConfig, RewardConfig, PPOConfig])
@pytest.mark.parametrize(
    "given", [{"torch_compile": True}, {"torch_compile_backend": "eager"}, {"torch_compile_mode": "default"}]
)
def test_torch_compile_is_refused_and_stays_off(config: Any, given: dict[str, Any], tmp_path: Path):
    with pytest.raises(UserError, match="torch_compile is True: compiled layers were not surely faster on a CPU"):
        config(str(tmp_path), **given)
    assert "ACCELERATE_DYNAMO_BACKEND" not in os.environ  # which later trainers would follow
