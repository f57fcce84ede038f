"""Early stopping, and the best weights put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from hf_align.errors import UserError
from hf_align.models.reward import load_reward_model
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.trainers.pairs import options, pairs
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

STOPPING = {
    **{"max_steps": 8, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "optim": "adamw_torch"},
    **{"early_stopping_patience": 2, "metric_for_best_model": "own", "learning_rate": 0.01},
}
LORA = LoraConfig(r=4, target_modules="all-linear")


class Weights(TrainerCallback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.steps: dict[int, list[Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.steps[state.global_step] = weights(model)


def weights(model: Any) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(map(torch.equal, first, second))


def judged(values: list[float]) -> Any:
    """A metric that takes these values in turn."""
    left = iter(values)
    return lambda prediction: {"own": next(left)}


def reward(model: str, out: Path, values: list[float], peft: Any = LORA, callbacks: Any = (), **changes: Any) -> Any:
    args = RewardConfig(**options(out, **{**STOPPING, **changes}))
    data: dict[str, Any] = {"train_dataset": pairs(), "eval_dataset": pairs(4)}
    own = {"compute_metrics": judged(values), "callbacks": [*callbacks], "peft_config": peft}
    return RewardTrainer(model, args=args, **data, **own)


@pytest.mark.parametrize(
    ("peft", "changes"),
    [
        (LORA, {"normalize_on": "eval"}),
        (LORA, {"head": "mlp", "freeze_layers": 1, "tasks": {"safe": "binary"}, "task_weights": {"safe": 0}}),
        pytest.param(None, {"head": "attention"}, marks=pytest.mark.slow),
    ],
    ids=["lora, normalised", "lora, mlp, frozen layers, tasks", "whole model"],
)
def test_training_stops_without_a_better_model_and_puts_the_best_weights_back(
    peft: Any, changes: Any, tiny_model_dir: str, tmp_path: Path
) -> None:
    seen = Weights()
    trainer = reward(tiny_model_dir, tmp_path, [0.1, 0.9, 0.9, 0.5], peft, [seen], **changes)
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.state.best_global_step == 2
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    best = load_reward_model(tmp_path / "checkpoint-2")
    prompts, responses = ["Review a film."] * 3, ["A joy.", "I left.", "Fine."]
    if "normalize_on" in changes:
        assert trainer.model.normalization is not None
        best.normalize(trainer.eval_dataset, "eval_dataset")
        assert trainer.model.normalization.mean == pytest.approx(best.normalization.mean, abs=1e-6)  # type: ignore[union-attr]
    else:
        assert equal(weights(trainer.model), seen.steps[2]) and not equal(seen.steps[2], seen.steps[4])
    assert trainer.model.score(prompts, responses) == pytest.approx(best.score(prompts, responses), abs=1e-6)


def test_the_best_evaluation_is_saved_between_the_steps_that_are(tiny_model_dir: str, tmp_path: Path) -> None:
    seen = Weights()
    values, saving = [0.1, 0.2, 0.9, 0.3, 0.3], {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    trainer = reward(tiny_model_dir, tmp_path, values, callbacks=[seen], **saving)
    trainer.train()
    assert trainer.state.global_step == 5 and equal(weights(trainer.model), seen.steps[3])
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")


def test_a_resumed_run_goes_on_waiting_and_ends_with_the_same_weights(tiny_model_dir: str, tmp_path: Path) -> None:
    values = [0.9, 0.1, 0.1, 0.1]
    saving = {"save_strategy": "steps", "save_steps": 1, "early_stopping_patience": 3}
    whole = reward(tiny_model_dir, tmp_path, values, **saving)
    whole.train()
    resumed = reward(tiny_model_dir, tmp_path, values[3:] * 4, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert whole.state.global_step == resumed.state.global_step == 4
    assert equal(weights(whole.model), weights(resumed.model))


def dpo(model: str, out: Path, callbacks: Any) -> Trainer:
    args = DPOConfig(**options(out, **STOPPING))
    own = {"compute_metrics": judged([0.1, 0.9, 0.5, 0.5]), "peft_config": LORA}
    return DPOTrainer(model, args=args, train_dataset=pairs(), eval_dataset=pairs(2), callbacks=callbacks, **own)


def ppo(model: str, out: Path, callbacks: Any) -> Trainer:
    shape = {"per_device_train_batch_size": 4, "num_mini_batches": 2, "num_ppo_epochs": 1, "max_new_tokens": 3}
    metric = {"metric_for_best_model": "reward", "greater_is_better": False}
    return PPOTrainer(
        toy_model(),
        args=PPOConfig(**options(out, **{**STOPPING, **shape, **metric, "max_steps": 6})),
        train_dataset=varied_prompts(40),
        eval_dataset=varied_prompts(4),
        processing_class=toy_tokenizer(),
        reward=toy_reward(3),
        callbacks=callbacks,
    )


@pytest.mark.parametrize("build", [pytest.param(dpo, marks=pytest.mark.slow), ppo])
def test_policies_and_their_values_are_put_back_too(build: Any, tiny_model_dir: str, tmp_path: Path) -> None:
    seen = Weights()
    trainer = build(tiny_model_dir, tmp_path, [seen])
    trainer.train()
    best = trainer.state.best_global_step
    assert best < trainer.state.global_step and equal(weights(trainer.model), seen.steps[best])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"eval_strategy": "no"},
            "early_stopping_patience needs evaluations, and eval_strategy is 'no'; set it to 'st",
        ),
        (
            {"save_strategy": "no"},
            "needs saved models to put back, and save_strategy is 'no'; set save_strategy to 'best'",
        ),
        ({"save_strategy": "epoch"}, "save_strategy is 'epoch'; .* or to 'steps' as eval_strategy"),
        (
            {"save_strategy": "steps", "save_steps": 3, "eval_steps": 2},
            "save_steps, 3, is no multiple of eval_steps, 2",
        ),
        ({"save_strategy": "steps", "save_steps": 0.5, "eval_steps": 2}, "save_steps, 0.5, is no multiple of eval_st"),
        ({"early_stopping_patience": 0}, "early_stopping_patience is 0; it must be a whole number of at least 1"),
        (
            {"early_stopping_patience": None, "load_best_model_at_end": True, "eval_strategy": "no"},
            "load_best_model_at_",
        ),
    ],
)
def test_a_best_model_that_would_not_be_known_or_saved_is_refused(changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        RewardConfig(**options(tmp_path, **{**STOPPING, **changes}))


def test_only_one_callback_stops(tiny_model_dir: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="callbacks has an EarlyStoppingCallback, and early_stopping_patience is set"):
        reward(tiny_model_dir, tmp_path, [], callbacks=[EarlyStoppingCallback(1)])
    for changes, message in (
        ({"eval_strategy": "steps"}, "metric_for_best_model, which it goes by, isn't set; set it, such as to 'loss'"),
        ({"metric_for_best_model": "loss"}, "eval_strategy is 'no', so nothing is evaluated; set it to 'steps' or"),
    ):
        with pytest.raises(UserError, match=f"callbacks has an EarlyStoppingCallback, and {message}"):
            RewardTrainer(
                "nowhere/model", args=RewardConfig(**options(tmp_path, **changes)), callbacks=[EarlyStoppingCallback(1)]
            )
