"""Error-prone parts of PPO's loop: packed rows, restarted runs, skipped optimizer steps, the exact KL."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import TrainerCallback

from hf_align.errors import UserError
from hf_align.trainers.ppo.experience import kept_row
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.rollouts.rollout import Rollout
from tests.trainers.ppo.test_trainer import LENGTH, logs_of, ppo
from tests.trainers.test_base import same_weights
from tests.trainers.test_dpo import weights_of
from tests.trainers.toy import policy_of, toy_model, toy_reward


def remember_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Record the last gradient of each trained weight."""
    actual: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient, name=name: actual.__setitem__(name, gradient.clone()))
    return actual


def change_rollouts(trainer: PPOTrainer, change: Callable[[Rollout], object]) -> None:
    """Change every rollout before it is trained on."""
    make = trainer.make_rollout

    def changed(model: nn.Module, number: int) -> Rollout:
        rollout = make(model, number)
        change(rollout)
        return rollout

    trainer.make_rollout = changed


def forget_the_kept_pass(rollout: Rollout) -> None:
    rollout.first_output = None


class Copies(TrainerCallback):
    """A copy of the model after each step."""

    def __init__(self) -> None:
        self.models: list[Any] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.models.append(copy.deepcopy(model.model))


def test_packing_changes_nothing(tmp_path: Path):
    runs = []
    for row_tokens in (None, 40):
        trainer = ppo(tmp_path, row_tokens=row_tokens, max_steps=8)
        trainer.train()
        runs.append(trainer)
    same_weights(runs[0].model, runs[1].model)
    assert logs_of(runs[1])[0]["val/ratio"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_mini_batches": 1}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}],
    ids=["mini-batches", "one", "micro-batches"],
)
def test_the_first_loss_goes_on_from_the_scoring_pass(tmp_path: Path, changes: dict[str, Any]):
    """The same weights as with a separate pass, with one pass fewer per rollout."""
    runs, passes = [], []
    for kept in (True, False):
        trainer = ppo(tmp_path, layout="branch", max_steps=8, **changes)
        if not kept:
            change_rollouts(trainer, forget_the_kept_pass)
        count = []
        trainer.model.model.register_forward_pre_hook(lambda *_, count=count: count.append(torch.is_grad_enabled()))
        trainer.train()
        runs.append(trainer)
        passes.append(count)
    same_weights(runs[0].model, runs[1].model, atol=1e-6, rtol=1e-6)
    rollouts = 8 // runs[0].args.steps_per_rollout
    steps = 8 * runs[0].args.gradient_accumulation_steps
    assert (sum(passes[0]), sum(passes[1])) == (steps, steps + rollouts), "passes with gradients"
    assert len(passes[1]) - len(passes[0]) == rollouts
    for mine, other in zip(logs_of(runs[0]), logs_of(runs[1]), strict=True):
        assert mine["policy/approxkl_avg"] == pytest.approx(other["policy/approxkl_avg"], abs=1e-6)


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "full"])
def test_the_kept_pass_holds_gradients_under_autocast(tmp_path: Path, adapter: bool):
    """A pass without gradients comes right before it: autocast must not reuse that pass's casts."""
    gradients = []
    for kept in (True, False):
        lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False) if adapter else None
        trainer = ppo(tmp_path, {"peft_config": lora}, bf16=True, max_steps=1)
        if not kept:
            change_rollouts(trainer, forget_the_kept_pass)
        gradients.append(remember_gradients(trainer.model))
        trainer.train()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0.05, atol=0.05 * float(gradient.abs().max()))


@pytest.mark.parametrize("changes", [{"entropy_coef": 0.1}, {"kl_in": "loss", "kl_estimator": "full"}])
def test_a_loss_that_asks_for_more_runs_its_own_pass(tmp_path: Path, changes: dict[str, Any]):
    trainer = ppo(tmp_path, **changes)
    assert kept_row(0, trainer.args, trainer.accelerator) is None


def test_a_run_that_failed_within_a_step_can_begin_again(tmp_path: Path):
    good = toy_reward(LENGTH)

    def down(prompts: list[str], responses: list[str], **columns: Any) -> list[float]:
        raise RuntimeError("the judge is down")

    settings: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    trainer = ppo(tmp_path, {"reward": down}, **settings)
    with pytest.raises(UserError, match="the judge is down"):
        trainer.train()
    trainer.reward.members[0].scorer = lambda samples: good(samples.texts, samples.responses)
    trainer.train()
    fresh = ppo(tmp_path, **settings)
    fresh.train()
    same_weights(trainer.model, fresh.model, atol=0, rtol=0)


def test_the_exact_kl_is_in_the_loss(tmp_path: Path):
    copies = Copies()
    trainer = ppo(
        tmp_path,
        {"callbacks": [copies]},
        kl_in="loss",
        kl_estimator="full",
        kl_coef=0.7,
        value_coef=0.3,
        num_mini_batches=1,
        max_steps=2,
    )
    reference = policy_of(copy.deepcopy(trainer.model.model))
    trainer.train()
    rollout, policy = trainer.rollout, policy_of(copies.models[0])
    assert rollout is not None
    divergences = []
    for prompt, response in zip(rollout.prompt_ids, rollout.response_ids, strict=True):
        for place in range(len(response)):
            state = (*prompt, *response[:place])
            ours, theirs = policy(state).log_softmax(-1), reference(state).log_softmax(-1)
            divergences.append(float((ours.exp() * (ours - theirs)).sum()))
    log = logs_of(trainer)[1]  # of the second step, by the policy after the first
    kl = sum(divergences) / len(divergences)
    assert kl > 1e-4
    assert log["loss"] == pytest.approx(log["loss/policy_avg"] + 0.3 * log["loss/value_avg"] + 0.7 * kl, abs=1e-5)


def test_a_scaler_that_finds_infinite_gradients_skips_the_step(tmp_path: Path):
    """As on a GPU with fp16; here the accelerator uses PyTorch's gradient scaler for CPUs."""
    copies = Copies()
    trainer = ppo(tmp_path, {"callbacks": [copies]}, early_stop_kl=1e-9, max_steps=8, max_grad_norm=0)
    start = weights_of(trainer.model.model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-120)
    trainer.accelerator.scaler = cast(Any, scaler)
    trainer.train()
    assert trainer.state.global_step == 8 and scaler.get_scale() == 2.0**7
    weights = [weights_of(model) for model in copies.models]
    same = [
        all(torch.equal(before[name], after[name]) for name in before)
        for before, after in zip([start, *weights], weights, strict=False)
    ]
    # Step 1 overflows; step 2, still at a ratio of 1, moves, as do 3, which is over the KL limit, and 5 and 6.
    assert same == [True, False, False, True, False, False, True, True]


METRICS = """
    objective/kl objective/scores objective/rlhf_reward objective/entropy policy/approxkl_avg policy/clipfrac_avg
    loss/policy_avg loss/value_avg val/ratio val/explained_variance kl_coef response/length response/eos_share
    time/generate time/score time/update episode
""".split()


def test_the_log_has_every_metric(tmp_path: Path):
    trainer = ppo(tmp_path)
    trainer.train()
    for step, log in enumerate(trainer.state.log_history[:-1]):
        of_rollout = {"objective", "response", "val/explained_variance", "kl_coef"}
        expected = [n for n in METRICS if step % 4 == 0 or not {n, n.split("/")[0]} & of_rollout]
        assert not [name for name in expected if not math.isfinite(log[name])], "finite, all of them"
        assert sum(log[name] for name in METRICS if name.startswith("time/")) == pytest.approx(1)
        assert log["episode"] == 16


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_detached_trunk_is_not_trained_by_the_values(tmp_path: Path, head: str):
    # Without advantages the policy's loss is 0 everywhere: only values train anything.
    start = toy_model()
    for detached in (True, False):
        changes = {"value_head": head, "detach_value_trunk": detached, "policy_loss": "reinforce", "kl_coef": 0.0}
        trainer = ppo(tmp_path, kl_controller="fixed", max_steps=2, num_ppo_epochs=None, num_mini_batches=1, **changes)
        change_rollouts(trainer, lambda rollout: rollout.tokens["advantages"].zero_())
        trainer.train()
        moved = [
            not torch.equal(a, b) for a, b in zip(start.parameters(), trainer.model.model.parameters(), strict=True)
        ]
        assert any(moved) is not detached
        assert any(parameter.abs().sum() > 0 for parameter in trainer.model.value_head.parameters())
