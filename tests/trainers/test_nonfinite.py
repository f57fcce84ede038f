"""Non-finite numbers: found in their step, on all processes, and never saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.reward import load_reward_model
from tests.tiny import save_tiny
from tests.trainers.injections import ONE_PROCESS, Injection, Outcome, broken_files, build, held, run

FAST = [
    Injection("dpo", "loss", 0, 0),
    Injection("dpo", "constant", 1, 1),
    Injection("dpo", "late", 1),
    Injection("reward", "gradient", 1, 0),
    Injection("reward", "weight", 1),
    Injection("ppo", "loss", 1, 1),
    Injection("ppo", "reward", 2),
    Injection("ppo", "weight", 2),
    Injection("ppo", "values", 2),
]


def found_in_its_step(injection: Injection, model: str, out: Path) -> None:
    outcome, _ = run(injection, out, model, save_total_limit=1)
    assert held(injection, outcome), (injection, outcome)


@pytest.mark.parametrize("injection", FAST, ids=lambda one: f"{one.trainer}-{one.kind}-{one.step}-{one.micro}")
def test_what_is_not_finite_is_found_in_its_step_and_never_saved(
    injection: Injection, tiny_model_dir: str, tmp_path: Path
):
    found_in_its_step(injection, tiny_model_dir, tmp_path)


@pytest.mark.slow
def test_so_it_is_wherever_it_comes_up(tiny_model_dir: str, tmp_path: Path):
    for number, injection in enumerate(ONE_PROCESS):
        found_in_its_step(injection, tiny_model_dir, tmp_path / str(number))


def weights(out: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(out / f"checkpoint-{step}" / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in right)


def test_skip_leaves_the_whole_step_out_of_weights_metrics_and_mean_losses(tmp_path: Path):
    plain, _ = build(Injection("dpo", "nothing"), tmp_path / "plain", save_strategy="no", max_steps=1)
    plain.train()
    outcome, trainer = run(Injection("dpo", "loss"), tmp_path, on_nonfinite="skip", logging_steps=2)
    assert outcome == Outcome(1, "", 4, [])
    assert same(weights(tmp_path, 1), weights(tmp_path, 2)) and not same(weights(tmp_path, 2), weights(tmp_path, 3))
    history = [log for log in trainer.state.log_history if "loss" in log]
    for name in ("loss", "logps/chosen"):
        assert history[0][name] == pytest.approx(plain.state.log_history[0][name]), "of the step that was taken"
    mean = (history[0]["loss"] + 2 * history[1]["loss"]) / 3
    assert trainer.state.log_history[-1]["train_loss"] == pytest.approx(mean)


def test_a_rollout_with_a_reward_that_is_no_number_is_not_trained_on(tmp_path: Path, caplog: Any):
    outcome, trainer = run(Injection("ppo", "reward", 0), tmp_path, on_nonfinite="skip")
    assert outcome == Outcome(0, "", 4, []) and "The reward 'reward' gave nan to" in caplog.text
    assert same(weights(tmp_path, 1), weights(tmp_path, 2)) and not same(weights(tmp_path, 2), weights(tmp_path, 3))
    strange = {
        (name, log["step"])
        for log in trainer.state.log_history
        for name, value in log.items()
        if not math.isfinite(value)
    }
    assert strange == {("loss", 1), ("loss", 2)}, "means over no steps"


def test_a_rollout_that_is_left_out_has_no_share_in_mean_losses(tmp_path: Path):
    logged = {}
    for every in (1, 2):
        _, trainer = run(Injection("ppo", "reward", 0), tmp_path / f"{every}", on_nonfinite="skip", logging_steps=every)
        logged[every] = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        last = trainer.state.log_history[-1]["train_loss"]
        taken = [loss for loss in logged[1] if math.isfinite(loss)]
        assert 0 < len(taken) < len(logged[1]) and last == pytest.approx(sum(taken) / len(taken))
    pairs = [[loss for loss in logged[1][i : i + 2] if math.isfinite(loss)] for i in range(0, len(logged[1]), 2)]
    for mean, steps in zip(logged[2], pairs, strict=True):
        assert mean == pytest.approx(sum(steps) / len(steps)) if steps else math.isnan(mean)


def test_skip_stops_at_the_third_in_a_row(tmp_path: Path):
    trainer, _ = build(Injection("dpo", "nothing"), tmp_path, on_nonfinite="skip", save_steps=4)
    inner = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: inner(*args, **kwargs) * math.inf
    with pytest.raises(UserError, match="step 3: loss and grad_norm are NaN or infinite, for the 3rd time in a row"):
        trainer.train()
    assert [log["nonfinite/step"] for log in trainer.state.log_history if "nonfinite/step" in log] == [1, 2, 3]
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(("scale", "stops"), [(65536.0, False), (1.0, True)])
def test_an_infinite_gradient_is_the_loss_scalers_until_it_scales_no_more(tmp_path: Path, scale: float, stops: bool):
    trainer, _ = build(Injection("dpo", "gradient", 0), tmp_path, max_steps=1, save_strategy="no")
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    if stops:
        with pytest.raises(UserError, match="grad_norm is NaN or infinite"):
            trainer.train()
    else:
        trainer.train()
        assert "nonfinite/step" not in trainer.state.log_history[0]
        assert trainer.accelerator.optimizer_step_was_skipped and trainer.accelerator.scaler.get_scale() < scale
        trainer.save_model()


@pytest.mark.parametrize("load", [load_policy, load_reward_model])
def test_weights_that_are_not_finite_are_refused_by_file_and_name(load: Any, tmp_path: Path):
    folder = save_tiny(tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 4] = math.inf
    save_file(tensors, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    for quantization in (None, "8bit"):
        with pytest.raises(UserError, match=rf"The weight {name} in model\.safetensors of .* NaN or infinite"):
            load(folder, quantization=quantization)


def test_a_model_that_broke_is_not_saved_and_its_evaluation_remarked(tmp_path: Path, caplog: Any):
    trainer, injector = build(Injection("dpo", "nothing"), tmp_path, eval_strategy="no")
    injector._break(trainer.model)
    trainer.evaluate(trainer.train_dataset)
    assert "Evaluation at step 0: eval_loss" in caplog.text
    with pytest.raises(UserError, match=r"isn't saved: the weight .*q_proj.* is NaN or infinite"):
        trainer.save_model(str(tmp_path / "saved"))
    assert not list(tmp_path.rglob("*.safetensors")) and not list(broken_files(tmp_path))


def test_no_trainer_hides_a_loss_that_is_not_finite(tmp_path: Path):
    for algorithm in ALGORITHMS.values():
        config = algorithm.load()[1](str(tmp_path))
        assert config.on_nonfinite == "stop" and not config.logging_nan_inf_filter, algorithm.name
