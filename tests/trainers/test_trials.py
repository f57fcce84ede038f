"""Trials of a hyperparameter search start from nothing, and are the runs that trainers of their own would be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from peft import LoraConfig
from transformers import TrainerCallback

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.tracking import read_runs
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from hf_align.trainers.searching import Objective
from tests.trainers.pairs import options, text_pairs
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

SYNCED = {"sync_ref_model": True, "ref_model_sync_steps": 1}
KINDS: dict[str, Any] = {
    "reward": (RewardTrainer, RewardConfig, {}),
    "dpo": (DPOTrainer, DPOConfig, SYNCED),
    "precomputed": (DPOTrainer, DPOConfig, {"precompute_ref_log_probs": True}),
}


class Keep(TrainerCallback):
    """The weights at the end of each training."""

    def __init__(self) -> None:
        self.weights: list[list[torch.Tensor]] = []

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append([weight.detach().clone() for weight in model.parameters()])


def build(kind: str, out: Path, keep: Keep, given: dict[str, Any], **changes: Any) -> Any:
    trainer, config, further = KINDS[kind]
    rows = text_pairs(6, margin=kind == "reward")
    return trainer(
        **given,
        args=config(**options(out, **{"max_steps": 2, "optim": "adamw_torch", **further, **changes})),
        train_dataset=rows,
        eval_dataset=rows,
        peft_config=None if kind == "precomputed" else LoraConfig(r=2, target_modules="all-linear"),
        callbacks=[keep],
    )


@pytest.fixture(autouse=True)
def quiet_and_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))  # of the reference's log-probs
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.mark.parametrize("kind", KINDS)
def test_each_trial_is_the_run_of_a_trainer_of_its_own(kind: str, tiny_model_dir: str, tmp_path: Path):
    searched, alone = Keep(), Keep()
    trainer = build(kind, tmp_path / "search", searched, {"model_init": lambda: tiny_model_dir})
    grid = {"learning_rate": [0.5, 0.01]}
    best = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 0.01, 0.5), "seed": trial.number},
        n_trials=2,
        backend="optuna",
        sampler=optuna.samplers.GridSampler(grid, seed=0),
    )
    for number in range(2):
        (run,) = read_runs(tmp_path / "search" / f"run-{number}")
        assert run.config["seed"] == number
        changes = {name: run.config[name] for name in ("learning_rate", "seed")}
        own = build(kind, tmp_path / str(number), alone, {"model": tiny_model_dir}, **changes)
        own.train()
        if str(number) == best.run_id:
            assert own.evaluate()["eval_loss"] == best.objective
    assert best.hyperparameters["learning_rate"] in grid["learning_rate"]
    for ours, theirs in zip(searched.weights, alone.weights, strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_a_model_made_by_the_trial_is_trained(tiny_model_dir: str, tmp_path: Path):
    keep, seen = Keep(), []

    def made(trial: Any) -> Any:
        seen.append(trial)
        model = load_policy(tiny_model_dir)
        model.model.norm.weight.data += torch.rand(())  # the same each time: seeds are set before
        return model

    trainer = build("precomputed", tmp_path, keep, {"model_init": made})
    trainer.train()
    trainer.train()
    assert seen == [None] * 3 and all(map(torch.equal, *keep.weights))


def test_a_model_that_was_trained_is_no_new_one(tiny_model_dir: str, tmp_path: Path):
    model = load_policy(tiny_model_dir)
    trainer = build("precomputed", tmp_path, Keep(), {"model_init": lambda: model})
    with pytest.raises(UserError, match="model_init returned the model that was trained before"):
        trainer.train()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learning_rat": 0.1}, "DPOConfig has no option learning_rat"),
        ({"max_length": 5}, "max_length is read when the trainer is made"),
        ({"beta": -1.0}, "beta"),
        ({"loss_type": "simpo"}, "sync_ref_model"),
    ],
    ids=str,
)
def test_values_of_a_trial_are_checked(values: dict[str, Any], said: str, tiny_model_dir: str, tmp_path: Path):
    trainer = build("dpo", tmp_path, Keep(), {"model_init": lambda: tiny_model_dir})
    with pytest.raises(UserError, match=said):
        trainer.hyperparameter_search(lambda trial: values, n_trials=1, backend="optuna")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "model is missing"),
        ({"model": "m", "model_init": lambda: "m"}, "model and model_init are given"),
        ({"model_init": lambda a, b: "m"}, "model_init takes 2 arguments"),
        ({"model_init": lambda: None}, "model_init returned None"),
        ({"model_init": lambda: "m", "optimizers": ("one", None)}, "optimizers doesn't go with model_init"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",  # functions' names hold addresses
)
def test_refused_before_anything_is_loaded(given: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        build("dpo", tmp_path, Keep(), given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": "optun"}, "backend is 'optun'; use 'optuna' or 'ray' or 'wandb'"),
        ({"backend": "sigopt"}, "backend is 'sigopt'; use"),
        ({"backend": "ray"}, r"backend is 'ray', which isn't installed; pip install 'ray\[tune\]', or use 'optuna'"),
        ({"direction": "max"}, "direction is 'max'; use 'minimize' or 'maximize'"),
        ({"direction": []}, r"direction is \[\]; use"),
        ({"n_trials": 0}, "n_trials is 0; give a whole number"),
        (
            {"compute_objective": lambda metrics: metrics["eval_accuracy"]},
            "compute_objective reads 'eval_accuracy', which evaluations here don't return; they return eval_loss, ",
        ),
        ({"compute_objective": lambda metrics: metrics.get("eval_accuracy")}, "compute_objective returned None"),
        ({"compute_objective": lambda metrics: [0.5, 0.5]}, r"returned \[0.5, 0.5\]; return a number"),
        (
            {"compute_objective": lambda metrics: metrics["eval_loss"], "direction": ["minimize", "maximize"]},
            "direction lists 2: return as many numbers",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_search_that_couldnt_end_is_refused_before_its_first_trial(
    given: dict[str, Any], said: str, tiny_model_dir: str, tmp_path: Path
):
    trainer = build("dpo", tmp_path, Keep(), {"model_init": lambda: tiny_model_dir})

    def space(trial: Any) -> dict[str, Any]:
        raise AssertionError("a trial has begun")

    with pytest.raises(UserError, match=f"^hyperparameter_search: .*{said}"):
        trainer.hyperparameter_search(space, **{"n_trials": 1, "backend": "optuna", **given})


def test_a_metric_of_the_user_s_own_that_is_missing_is_named_after_the_first_trial() -> None:
    objective = Objective(lambda metrics: metrics["eval_mine"], directions=0)
    assert objective({"eval_mine": 2.0}) == 2.0
    with pytest.raises(UserError, match=r"reads 'eval_mine', which .*; they return eval_loss, epoch"):
        objective({"eval_loss": 1.0, "epoch": 1.0})
    table = {"a": 1.0}
    with pytest.raises(KeyError):  # which isn't about a metric, but the function's own
        Objective(lambda metrics: table[min(metrics)], directions=0)({"eval_loss": 1.0})
    Objective(lambda metrics: 1 / (metrics["eval_loss"] - 0.5), directions=0).try_on(
        ["eval_loss"]
    )  # of a made-up value


def test_several_processes_search_by_themselves(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer = build("dpo", tmp_path, Keep(), {"model_init": lambda: tiny_model_dir})
    monkeypatch.setattr("transformers.TrainingArguments.world_size", 2)
    with pytest.raises(UserError, match="hyperparameter_search runs in one process, and 2 train here"):
        trainer.hyperparameter_search(lambda trial: {}, n_trials=1, backend="optuna")


def test_without_a_function_there_is_no_search(tiny_model_dir: str, tmp_path: Path):
    with pytest.raises(UserError, match="give a function that returns one as model_init"):
        build("dpo", tmp_path, Keep(), {"model": tiny_model_dir}).hyperparameter_search(backend="optuna")
    shape = {"per_device_train_batch_size": 4, "num_mini_batches": 1, "num_ppo_epochs": 1, "max_new_tokens": 3}
    args = PPOConfig(**options(tmp_path, **shape))
    tokens, reward = toy_tokenizer(), toy_reward(3)
    ppo = PPOTrainer(toy_model(), args=args, train_dataset=varied_prompts(4), processing_class=tokens, reward=reward)
    with pytest.raises(UserError, match="PPO has no hyperparameter_search"):
        ppo.hyperparameter_search(backend="optuna")
