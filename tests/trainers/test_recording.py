"""Every trainer records its run in its output folder, with its algorithm's prefix."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback

from hf_align import DPOConfig, DPOTrainer, RewardConfig, RewardEnsemble, RewardTrainer, load_best, train_ensemble
from hf_align.algorithms import ALGORITHMS
from hf_align.tracking import Run, RunRecord, best_checkpoint, read_record
from hf_align.tracking.schema import FILE
from hf_align.trainers import SFTConfig, SFTTrainer
from hf_align.trainers.recording import RecordingTrainer
from tests.trainers.pairs import options, pairs
from tests.trainers.test_resuming import SAVING, dpo, ppo

EVALUATING = {"eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1}


def only(folder: Path) -> Run:
    [run] = read_record(folder)
    return run


def steps(run: Run, name: str) -> list[int]:
    return [point.step for point in run.metrics(name)]


class Stop(TrainerCallback):
    """Ends a training after its second step: `error` is raised, None asks Trainer to stop."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            if self.error is not None:
                raise self.error
            control.should_training_stop = True


def test_a_run_is_recorded_from_the_first_step_to_the_saved_model(tiny_model_dir: str, tmp_path: Path):
    trainer = dpo(tiny_model_dir, tmp_path, max_steps=3, save_total_limit=1, **EVALUATING)
    trainer.train()
    trainer.save_model()
    run = only(tmp_path)
    assert (run.algorithm, run.status, run.steps) == ("dpo", "finished", 3)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [(p.step, p.value) for p in run.metrics("dpo/loss")] == [(e["step"], e["loss"]) for e in logged]
    assert steps(run, "eval_rewards/margins") == [1, 2, 3]
    assert run.config["beta"] == trainer.args.beta and run.config["output_dir"] == str(tmp_path)
    assert run.data["train"]["rows"] == len(pairs()) and run.data["train"] != run.data["eval"]
    assert run.base["name"] == tiny_model_dir and len(run.base["fingerprint"]) == 32
    states = [(each.folder, each.parts, each.removed is None, each.exists) for each in run.checkpoints]
    expected = [(tmp_path / f"checkpoint-{step}", step == 3) for step in (1, 2, 3)]
    assert states == [
        *((folder, {"policy": str(folder)}, left, left) for folder, left in expected),
        (tmp_path, {"policy": str(tmp_path)}, True, True),
    ]
    assert not list(tmp_path.glob(f"{FILE}-*"))


def test_the_same_data_and_base_have_the_same_fingerprints(tiny_model_dir: str, tmp_path: Path):
    """Whatever the maximum length that rows are tokenised with, the adapter, and what was trained."""
    plain, adapted = tmp_path / "plain", tmp_path / "adapted"
    dpo(tiny_model_dir, plain, max_steps=1).train()
    args = DPOConfig(**options(adapted, max_steps=1, max_length=64))
    lora = LoraConfig(task_type="CAUSAL_LM", r=2)
    rows: Any = [*pairs()]
    DPOTrainer(tiny_model_dir, args=args, train_dataset=rows, peft_config=lora).train()
    first, second = only(plain), only(adapted)
    assert first.data["train"] == second.data["train"] and first.base == second.base
    assert second.config["lora"]["r"] == 2 and "lora" not in first.config


def test_a_resumed_run_goes_on_in_its_record(tiny_model_dir: str, tmp_path: Path):
    broken = dpo(
        tiny_model_dir, tmp_path, [Stop(ValueError("a crash"))], max_steps=4, **{**EVALUATING, "save_steps": 1}
    )
    with pytest.raises(ValueError, match="a crash"):
        broken.train()
    assert only(tmp_path).status == "failed"
    dpo(tiny_model_dir, tmp_path, max_steps=4, **EVALUATING).train(resume_from_checkpoint=True)
    run = only(tmp_path)
    assert (run.status, [(s.status, s.from_step) for s in run.sessions]) == (
        "finished",
        [("failed", 0), ("finished", 1)],
    )
    assert steps(run, "loss") == [1, 2, 3, 4]
    fresh = dpo(tiny_model_dir, tmp_path, max_steps=1)
    fresh.train()
    assert [each.status for each in read_record(tmp_path)] == ["finished", "finished"]


@pytest.mark.parametrize(("error", "status"), [(None, "stopped"), (KeyboardInterrupt(), "stopped")])
def test_a_run_that_ends_early_is_stopped(error: Any, status: str, tiny_model_dir: str, tmp_path: Path):
    trainer = dpo(tiny_model_dir, tmp_path, [Stop(error)], max_steps=4)
    try:
        trainer.train()
    except KeyboardInterrupt:
        assert error is not None
    assert only(tmp_path).status == status


def test_evaluations_after_training_are_of_the_weights_that_were_put_back(tiny_model_dir: str, tmp_path: Path):
    best = {"metric_for_best_model": "rewards/chosen", "greater_is_better": False, "load_best_model_at_end": True}
    trainer = dpo(tiny_model_dir, tmp_path, max_steps=3, **{**EVALUATING, **best})
    trainer.train()
    step = trainer.state.best_global_step
    before = only(tmp_path).metrics("eval_loss")
    measured = trainer.evaluate()["eval_loss"]
    trainer.save_model()
    after = only(tmp_path)
    assert [p[:2] for p in after.metrics("eval_loss")] == [p[:2] for p in before]
    assert measured == next(p.value for p in before if p.step == step)
    assert after.checkpoints[-1].step == step
    assert best_checkpoint(tmp_path, "eval_rewards/chosen", greater_is_better=False).step == step


def test_policy_values_and_reward_of_ppo_belong_together(tiny_model_dir: str, tmp_path: Path):
    trainer = ppo(tiny_model_dir, tmp_path, max_steps=2, logging_steps=1)
    trainer.train()
    run = only(tmp_path)
    assert (
        run.algorithm == "ppo"
        and steps(run, "ppo/objective/kl")
        and run.config["reward"].endswith("toy_reward.<locals>.<lambda>")
    )
    last = str(tmp_path / "checkpoint-2")
    assert run.checkpoints[-1].parts == {"policy": last, "value": last}
    trainer._reward_as_given = str(tmp_path.parent)
    assert trainer._parts(Path(last))["reward"] == str(tmp_path.parent)
    trainer._reward_as_given = "ORG/NAME"
    assert trainer._parts(Path(last))["reward"] == "hub:ORG/NAME"


def test_sft_and_reward_models_are_recorded(tiny_model_dir: str, tmp_path: Path):
    rows = Dataset.from_list([{"prompt": "a", "completion": " b"}] * 4)
    args = SFTConfig(**options(tmp_path / "sft", max_steps=1, logging_steps=1))
    SFTTrainer(tiny_model_dir, args, rows).train()
    args = RewardConfig(**options(tmp_path / "rm", **{**SAVING, "max_steps": 1, "logging_steps": 1}))
    RewardTrainer(tiny_model_dir, args=args, train_dataset=pairs()).train()
    sft, reward = only(tmp_path / "sft"), only(tmp_path / "rm")
    assert (sft.algorithm, steps(sft, "sft/mean_token_accuracy")) == ("sft", [1]) and sft.data["train"]["rows"] == 4
    assert (reward.algorithm, steps(reward, "rm/accuracy")) == ("reward", [1])
    assert [list(each.parts) for each in reward.checkpoints] == [["reward"]]
    assert sft.base["fingerprint"] != "" and math.isfinite(sft.metrics("loss")[0].value)


def test_an_ensemble_has_one_record_with_a_stage_for_each_member(tiny_model_dir: str, tmp_path: Path):
    args = RewardConfig(**options(tmp_path, max_steps=1, logging_steps=1))
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    ensemble = train_ensemble(tiny_model_dir, args, pairs(), n=2, eval_dataset=pairs(2), peft_config=lora)
    run = only(tmp_path)
    assert (run.algorithm, run.status, run.config["n"]) == ("ensemble", "finished", 2)
    assert [(p.stage, p.step) for p in run.metrics("rm/loss")] == [("member-0", 1), ("member-1", 1)]
    assert [path.parent for path in tmp_path.rglob(FILE)] == [tmp_path]
    *members, whole = run.sessions
    assert {session.facts["config"]["seed"] for session in members} == {args.seed, args.seed + 1}
    results = json.loads((tmp_path / "ensemble_results.json").read_text())
    [point] = [each for each in run.metrics("rm/eval_accuracy") if each.stage == whole.stage == "ensemble"]
    assert (point.step, point.value) == (1, results["accuracy"])
    assert run.metrics("rm/eval_mean_member_accuracy")[0].value == results["mean_member_accuracy"]
    best = load_best(tmp_path, "eval_std", greater_is_better=False)
    assert isinstance(best.reward, RewardEnsemble)
    assert best.reward.score(["A film."], [" Good."]) == pytest.approx(
        ensemble.score(["A film."], [" Good."]), abs=1e-5
    )


def test_a_trainer_records_in_a_larger_run(tiny_model_dir: str, tmp_path: Path):
    with RunRecord.start(tmp_path / "all", "hybrid") as record:
        trainer = dpo(tiny_model_dir, tmp_path / "all" / "1-dpo", max_steps=2, logging_steps=1)
        trainer.record_in(record, "1-dpo")
        trainer.train()
    run = only(tmp_path / "all")
    assert [(p.stage, p.step) for p in run.metrics("dpo/loss")] == [("1-dpo", 1), ("1-dpo", 2)]
    assert run.checkpoints[-1].folder == tmp_path / "all" / "1-dpo" / "checkpoint-2"
    assert run.sessions[0].facts["config"]["output_dir"] == str(tmp_path / "all" / "1-dpo")


def test_without_record_there_is_none(tiny_model_dir: str, tmp_path: Path):
    trainer = dpo(tiny_model_dir, tmp_path, max_steps=1, record=False)
    trainer.train()
    assert not list(tmp_path.rglob(FILE))


def test_the_algorithm_of_a_trainer_is_that_of_its_nearest_class():
    class Mine(DPOTrainer):
        pass

    found = [ALGORITHMS.of_trainer(each) for each in (DPOTrainer, Mine, RewardTrainer, RecordingTrainer)]
    assert [algorithm and algorithm.name for algorithm in found] == ["dpo", "dpo", "reward", None]
    assert [ALGORITHMS[name].prefix for name in ("sft", "reward", "ensemble", "ppo")] == ["sft", "rm", "rm", "ppo"]
