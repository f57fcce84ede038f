"""The watch for over-optimisation: it stops a run whose reward misleads, and resumes as if uninterrupted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from hf_align.errors import UserError
from hf_align.evaluation.over_optimization import Course, is_over_optimized
from hf_align.model_cards import load_facts
from hf_align.models.reward import RewardModel
from hf_align.rewards import as_reward
from hf_align.rewards.vader import vader_judge
from hf_align.trainers.over_optimization import ALIKE, OverOptimizationCallback, check_judge
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.trainers.ppo.test_trainer import ppo
from tests.trainers.test_base import same_weights
from tests.trainers.toy import varied_prompts

STEPS = 7
EVALUATED: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True}


def more_b(prompts: list[str], responses: list[str]) -> list[float]:
    """The reward: the more b the better."""
    return [float(response.count("b")) for response in responses]


def one_b(prompts: list[str], responses: list[str]) -> list[float]:
    """The judge: one b is good, more are bad."""
    return [(0.0, 1.0, -1.0, -3.0)[response.count("b")] for response in responses]


def run(out: Path, **changes: Any) -> PPOTrainer:
    """One rollout a step, evaluated after each."""
    shape: dict[str, Any] = {"num_ppo_epochs": 1, "num_mini_batches": 1, "num_samples": 1, "kl_coef": 0.001}
    shape |= {"per_device_train_batch_size": 24, "per_device_eval_batch_size": 24, "kl_controller": "fixed"}
    options = {**shape, **EVALUATED, "max_steps": STEPS, "learning_rate": 0.05, "max_new_tokens": 3, **changes}
    given = {"reward": more_b, "judge": one_b, "eval_dataset": varied_prompts(24)}
    return ppo(out, given, **options)


@dataclass
class Runs:
    """A run that goes on, and one that stops."""

    folder: Path
    on: PPOTrainer
    stopped: PPOTrainer


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("over")
    on = run(folder / "on")
    on.train()
    saving = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    stopped = run(folder / "stopped", stop_on_over_optimization=True, metric_for_best_model="judge", **saving)
    stopped.train()
    stopped.save_model()
    return Runs(folder, on, stopped)


def points_of(trainer: PPOTrainer) -> list[dict[str, Any]]:
    assert trainer.over_optimization is not None
    return trainer.over_optimization.points


def test_a_run_stops_when_the_judge_falls_while_the_reward_rises(runs: Runs) -> None:
    whole, cut = points_of(runs.on), points_of(runs.stopped)
    assert runs.on.state.global_step == STEPS and [point["at"] for point in whole] == list(range(STEPS + 1))
    course = Course.from_json({"kind": "rl", "proxy_sd": 1.0, "judge_sd": 1.0, "points": whole})
    over = [
        end - 1 for end in range(1, STEPS + 2) if is_over_optimized(course.proxy[:, :end], course.judge[:, :end], 2)
    ]
    assert over and 2 < over[0] < STEPS and over[0] == runs.stopped.state.global_step
    assert cut == whole[: over[0] + 1]
    judge = course.judge.mean(0)
    assert judge[over[0]] < judge.max() - 0.1 and course.proxy.mean(0)[over[0]] > course.proxy.mean(0)[judge.argmax()]


def test_the_best_weights_come_back(runs: Runs) -> None:
    judge = [np.mean(point["judge"]) for point in points_of(runs.stopped)[1:]]
    best = int(np.argmax(judge)) + 1
    assert runs.stopped.state.best_global_step == best < runs.stopped.state.global_step
    saved = AutoModelForCausalLM.from_pretrained(runs.folder / "stopped" / f"checkpoint-{best}")
    same_weights(saved, runs.stopped.model.model, atol=0, rtol=0)


def test_a_resumed_run_decides_as_an_uninterrupted_one(runs: Runs, tmp_path: Path) -> None:
    at = runs.stopped.state.global_step - 1  # its first bad evaluation is in the checkpoint
    resumed = run(tmp_path, stop_on_over_optimization=True)
    resumed.train(resume_from_checkpoint=str(runs.folder / "stopped" / f"checkpoint-{at}"))
    assert resumed.state.global_step == at + 1 and points_of(resumed) == points_of(runs.stopped)
    written = [
        json.loads((folder / "over_optimization.json").read_text()) for folder in (tmp_path, runs.folder / "stopped")
    ]
    assert written[0] == written[1]
    over = run(tmp_path / "over", stop_on_over_optimization=True)
    over.train(resume_from_checkpoint=str(runs.folder / "stopped" / f"checkpoint-{at + 1}"))
    assert over.state.global_step == at + 1
    same_weights(over.model, resumed.model, atol=0, rtol=0)


def test_the_course_is_written_drawn_logged_and_on_the_card(runs: Runs) -> None:
    folder = runs.folder / "stopped"
    written = json.loads((folder / "over_optimization.json").read_text())
    course = Course.from_json(written["course"])
    means = [point["judge"] for point in written["figures"]["curve"]]
    assert means == pytest.approx(course.judge.mean(0))
    logged = [entry["eval_judge"] for entry in runs.stopped.state.log_history if "eval_judge" in entry]
    assert logged == pytest.approx(means)
    card, facts = (folder / "README.md").read_text(), load_facts(folder)
    assert facts is not None and facts.over_optimization == written["figures"]
    best = written["figures"]["curve"][written["figures"]["best"]]
    assert "## Over-optimisation" in card and f"at step {best['at']} (KL" in " ".join(card.split())
    assert written["figures"]["sentence"] in unescape(" ".join(card.split()))
    assert (folder / "over_optimization.png").read_bytes().startswith(b"\x89PNG")
    sample = json.loads((folder / "eval_samples" / "eval-1.json").read_text())[0]
    assert sample["judge"] == one_b([""], [sample["response"]])[0]


def test_an_evaluation_outside_of_training_is_not_part_of_the_course(runs: Runs) -> None:
    before = list(points_of(runs.stopped))
    metrics = runs.stopped.evaluate(varied_prompts(3))
    assert "eval_judge" in metrics and points_of(runs.stopped) == before


def test_without_stopping_it_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch, rng = OverOptimizationCallback(stop=False), np.random.default_rng(0)
    args, control, state = PPOConfig(str(tmp_path)), _Control(), _State()
    watch.on_train_begin(args, state, control)  # type: ignore[arg-type]
    with caplog.at_level("WARNING", logger="hf_align"):
        for step, judge in enumerate((0.0, 1.0, 0.5, 0.4, 0.3)):
            state.global_step = step
            noise = rng.normal(scale=0.01, size=(3, 12))
            watch.record(step, step + noise[0], step + noise[1], judge + noise[2])
            watch.on_evaluate(args, state, control)  # type: ignore[arg-type]
    assert caplog.text.count("over-optimised") == 1 and "stop_on_over_optimization=True would end" in caplog.text
    assert "from 1 at step 1 (KL 1.01) to 0.405" in " ".join(caplog.text.split()) and not control.should_training_stop
    watch.record(9, np.full(12, np.nan), np.zeros(12), np.zeros(12))
    assert "isn't finite; the evaluation is left out" in caplog.text and len(watch.points) == 5


class _Control:
    should_training_stop = False


class _State:
    global_step, is_world_process_zero, stateful_callbacks = 0, True, None


def test_a_judge_that_gives_the_rewards_scores_is_refused_at_its_first_evaluation() -> None:
    scores = np.random.default_rng(0).normal(size=30)
    with pytest.raises(UserError, match="its scores of 30 responses are the reward's, up to scale and offset"):
        OverOptimizationCallback().record(0, np.zeros(30), scores, 3 * scores + 1)
    for different in (2, ALIKE - 1):  # equal by chance, perhaps
        few = np.repeat(scores[:different], 5)
        OverOptimizationCallback().record(0, np.zeros(len(few)), few, 3 * few + 1)


def test_a_judge_of_one_score_is_remarked_once(caplog: pytest.LogCaptureFixture) -> None:
    scores, watch = np.random.default_rng(0).normal(size=30), OverOptimizationCallback()
    said = "judge gives every response the same score (0.5), so it judges nothing"
    for step, judge in enumerate([np.full(30, 0.5)] * 2):
        watch.record(step, np.zeros(30), scores, judge)
        assert caplog.text.count(said) == 1 and "Step 0: judge" in caplog.text
    watch.record(2, np.zeros(30), scores, scores**2)
    assert caplog.text.count(said) == 1 and len(watch.points) == 3


@cache
def config(**changes: Any) -> PPOConfig:
    return PPOConfig("out", report_to="none", **changes)


def test_unsuitable_judges_and_options_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    rows, path = varied_prompts(2), str(tmp_path / "model")
    stops = {"stop_on_over_optimization": True}
    for judge, reward, changes, data, message in (
        (None, more_b, stops, rows, "stop_on_over_optimization is True and there is no judge"),
        (None, more_b, {"metric_for_best_model": "eval_judge"}, rows, "metric_for_best_model is 'judge' and there"),
        (one_b, more_b, {}, None, "judge scores the responses to held-out prompts; give one eval_dataset"),
        (one_b, more_b, {}, {"a": rows}, "give one eval_dataset"),
        (one_b, more_b, stops, rows, "decides at evaluations and eval_strategy is 'no'"),
        (more_b, more_b, {}, rows, "the reward itself: .*more_b; give an independent one"),
        (path, [(0.5, more_b), (1.0, path + "/../model")], {}, rows, "part of.*the reward itself"),
        (vader_judge, as_reward([one_b, vader_judge]), {}, rows, "the reward itself: vader; .* such as a reward model"),
    ):
        with pytest.raises(UserError, match=message):
            check_judge(judge, reward, config(**changes), data)
    check_judge(one_b, [(1.0, more_b), (0.5, path)], config(), rows)
    check_judge(None, more_b, config(), None)
    scores = [lambda prompts, responses: [0.0], lambda prompts, responses: [1.0]]
    check_judge(scores[0], scores[1], config(), rows)


def test_reward_and_judge_may_be_adapters_on_one_base(tiny_model_dir: str) -> None:
    rows = varied_prompts(2)
    first, second = (RewardModel.from_backbone(tiny_model_dir, lora=True) for _ in range(2))
    check_judge(first, second, config(), rows)
    with pytest.raises(UserError, match="the reward itself: the same object"):
        check_judge(first, [(1.0, first)], config(), rows)
