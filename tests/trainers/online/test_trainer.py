"""The loop of online DPO: pairs of each step, ties, judges, evaluation, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from hf_align.errors import UserError
from hf_align.feedback import FunctionJudge, RewardJudge
from hf_align.losses import dpo_loss, ipo_loss
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.trainer import OnlineDPOTrainer
from tests.trainers.pairs import options
from tests.trainers.test_base import same_weights
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

LENGTH = 3
REWARD = toy_reward(LENGTH)


def online(out: Path, trainer_options: dict[str, Any] | None = None, **changes: Any) -> OnlineDPOTrainer:
    """A trainer on the toy language: 8 prompts, two samples each, two mini-batches of 8 responses."""
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "num_mini_batches": 2,
        "max_new_tokens": LENGTH,
        "max_steps": 4,
        "learning_rate": 0.05,
    }
    arguments: dict[str, Any] = {
        "model": toy_model(),
        "args": OnlineDPOConfig(**options(out, **{**defaults, **changes})),
        "train_dataset": varied_prompts(12),
        "processing_class": toy_tokenizer(),
        "reward": REWARD,
    }
    return OnlineDPOTrainer(**{**arguments, **(trainer_options or {})})


def logs_of(trainer: OnlineDPOTrainer) -> list[dict[str, float]]:
    return [log for log in trainer.state.log_history if "loss" in log]


def by_reward(prompt: str, first: str, second: str) -> str:
    one, two = REWARD([prompt] * 2, [first, second])
    return "first" if one > two else "second" if two > one else "tie"


def plain_logps(model: Any, prompt: list[int], response: list[int], temperature: float) -> float:
    """A response's log-prob from the model's own logits."""
    logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return float((logits / temperature).log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum())


@pytest.mark.parametrize(
    "changes",
    [
        {"beta": 0.3},
        {"loss_type": "ipo", "ipo_reduction": "sum", "num_samples": 4, "per_device_train_batch_size": 16},
        {"pairs": "all", "num_samples": 4, "temperature": 0.7, "gradient_accumulation_steps": 2},
    ],
    ids=["dpo", "ipo", "all"],
)
@torch.no_grad()
def test_the_loss_is_that_of_dpo_or_ipo_on_the_same_pairs(tmp_path: Path, changes: dict[str, Any]):
    """The reference is another model, so that the first loss says something."""
    reference, settings = toy_model(5), {"num_mini_batches": 1, "max_steps": 1, **changes}
    trainer = online(tmp_path, {"ref_model": reference}, **settings)
    policy = toy_model()
    with torch.enable_grad():
        trainer.train()
    rollout, args = trainer.rollout, trainer.args
    assert len(rollout.pairs) > 2
    assert (rollout.scores[rollout.pairs[:, 0]] > rollout.scores[rollout.pairs[:, 1]]).all()
    columns = [
        torch.tensor(
            [
                plain_logps(model, rollout.prompt_ids[n], rollout.response_ids[n], args.temperature)
                for n in numbers.tolist()
            ]
        )
        for model in (policy, reference)
        for numbers in rollout.pairs.unbind(1)
    ]
    losses = dpo_loss(*columns, beta=args.beta) if args.loss_type == "sigmoid" else ipo_loss(*columns, beta=args.beta)
    [log] = logs_of(trainer)
    assert log["loss"] == pytest.approx(float(losses.mean()), abs=1e-5)
    chosen, rejected, ref_chosen, ref_rejected = columns
    assert log["logps/chosen"] == pytest.approx(float(chosen.mean()), abs=1e-4)
    margins = args.beta * (chosen - ref_chosen - rejected + ref_rejected)
    assert log["rewards/margins"] == pytest.approx(float(margins.mean()), abs=1e-4)
    assert log["rewards/accuracies"] == pytest.approx(float((margins > 0).float().mean()))
    gaps = rollout.scores[rollout.pairs]
    assert log["objective/scores_margin"] == pytest.approx(float((gaps[:, 0] - gaps[:, 1]).mean()), abs=1e-5)
    assert log["objective/scores"] == pytest.approx(float(rollout.scores.mean()), abs=1e-5)
    assert log["pairs/per_prompt"] == len(rollout.pairs) / (len(rollout.scores) / args.num_samples)


def test_the_first_loss_is_that_of_a_policy_that_is_its_reference(tmp_path: Path):
    trainer = online(tmp_path)
    trainer.train()
    first, *others = logs_of(trainer)
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5) and first["objective/kl"] == 0
    assert first["policy/approxkl_avg"] < 1e-10 and others[0]["policy/approxkl_avg"] > 1e-10
    assert first["episode"] == 16 and others[-1]["episode"] == 32
    assert 0 < first["objective/entropy"] < first["response/length"] * 1.61, "below log 5 nats a token"
    assert first["objective/rlhf_reward"] == pytest.approx(first["objective/scores"], abs=1e-5)


def test_accumulation_changes_nothing(tmp_path: Path):
    runs = []
    for size, accumulation in ((8, 1), (2, 4)):
        trainer = online(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation)
        trainer.train()
        runs.append(trainer)
    same_weights(runs[0].model, runs[1].model, atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(*map(logs_of, runs), strict=True):
        shared = {key for key in ours if "time" not in key and key not in ("epoch", "grad_norm")}
        assert {key: ours[key] for key in shared} == pytest.approx({key: theirs[key] for key in shared}, abs=1e-4)


@pytest.mark.parametrize("adapter", [False, True])
def test_a_judge_trains_as_the_reward_whose_order_it_has(tmp_path: Path, adapter: bool):
    peft = {"peft_config": LoraConfig(r=2, target_modules="all-linear")} if adapter else {}
    rewarded = online(tmp_path, peft, num_samples=4)
    rewarded.train()
    judged = online(tmp_path, {**peft, "reward": None, "judge": FunctionJudge(by_reward)}, num_samples=4)
    judged.train()
    assert torch.equal(rewarded.rollout.pairs, judged.rollout.pairs) and len(judged.rollout.pairs)
    same_weights(rewarded.model, judged.model, atol=0, rtol=0)
    assert not any(name.startswith("objective/scores") for name in logs_of(judged)[0])


def test_steps_without_a_pair_leave_the_weights_alone_and_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    changes = {"optim": "adamw_torch", "weight_decay": 0.1, "lr_scheduler_type": "linear"}
    trainer = online(tmp_path, {"reward": lambda prompts, responses: [1.0] * len(responses)}, **changes)
    before = toy_model()
    with caplog.at_level("WARNING", logger="hf_align"):
        trainer.train()
    same_weights(trainer.model.model, before, atol=0, rtol=0)
    log = trainer.state.log_history[0]
    assert log["pairs/ties"] == 1 and log["pairs/per_prompt"] == 0 and log["pairs/without_opinion"] == 0
    assert trainer.state.global_step == 4
    assert "no pair among the responses to 8 prompts" in caplog.text and "8 are ties" in caplog.text


def test_a_mini_batch_without_a_pair_is_passed_over_and_the_others_are_not(tmp_path: Path):
    """Only prompts of one word are judged; others tie. Micro-batches of one prompt, so most are empty."""

    def one_word(prompt: str, first: str, second: str) -> str:
        return by_reward(prompt, first, second) if prompt == "a" else "tie"

    settings = {"reward": None, "judge": FunctionJudge(one_word), "train_dataset": varied_prompts(4)}
    trainer = online(
        tmp_path, settings, per_device_train_batch_size=2, num_mini_batches=4, num_samples=2, max_steps=8, seed=3
    )
    trainer.train()
    assert all(bool((weight == weight).all()) for weight in trainer.model.parameters())
    taken = [log for log in logs_of(trainer) if log.get("logps/chosen") is not None]
    assert 0 < len(taken) <= 2, "of each four steps at most the one with the prompt 'a'"
    empty = [log for log in trainer.state.log_history if "loss" in log and "logps/chosen" not in log]
    assert len(empty) >= 6


def test_evaluation_by_a_judge_is_the_win_rate_over_the_reference(tmp_path: Path):
    settings = {"reward": None, "judge": FunctionJudge(by_reward), "eval_dataset": varied_prompts(40)}
    quick = {"logging_steps": 100, "per_device_eval_batch_size": 40}
    trainer = online(
        tmp_path, settings, **quick, num_mini_batches=1, max_steps=15, per_device_train_batch_size=32, learning_rate=0.5
    )
    before = trainer.evaluate()
    assert before["eval_win_rate"] == 0.5, "the same random numbers give the same responses"
    assert before["eval_objective/kl"] == 0 and "eval_reward" not in before
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_win_rate"] > 0.6 and after["eval_objective/kl"] > 0
    assert set(trainer.eval_samples[0]) == {"prompt", "response", "win_rate", "kl"}
    assert trainer.eval_rows["win_rate"].shape == (40,)


def test_evaluation_by_a_reward_has_the_judge_that_watches_it(tmp_path: Path):
    settings = {"eval_dataset": varied_prompts(12), "eval_judge": lambda prompts, responses: list(map(len, responses))}
    trainer = online(tmp_path, settings, eval_strategy="steps", eval_steps=2)
    trainer.train()
    metrics = [log for log in trainer.state.log_history if "eval_judge" in log]
    assert len(metrics) == 2 and all("eval_reward" in log for log in metrics)
    assert trainer.over_optimization is not None
    assert [point["at"] for point in trainer.over_optimization.points] == [2, 4]


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"reward": None}, {}, "neither is; give one of them"),
        ({"judge": FunctionJudge(by_reward)}, {}, "both are given; give one of them"),
        ({"reward": None, "judge": REWARD}, {}, "judge is a function; give a judge of pairs"),
        (
            {"reward": None, "judge": FunctionJudge(by_reward)},
            {"missing_eos_penalty": 1.0},
            "missing_eos_penalty is subtracted from scores, and a judge gives none",
        ),
        (
            {"reward": None, "judge": RewardJudge(REWARD), "eval_judge": REWARD, "eval_dataset": varied_prompts(2)},
            {},
            "eval_judge is .part of. the judge itself",
        ),
        ({"data_collator": list}, {}, "data_collator must be None: online DPO lays out"),
    ],
)
def test_what_can_t_be_trained_is_refused(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message):
        online(tmp_path, settings, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 1}, "num_samples"),
        ({"per_device_train_batch_size": 6, "num_samples": 4}, "multiple of num_samples=4"),
        ({"loss_type": "aot"}, "loss_type is 'aot', which isn't offered"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, "label_smoothing is 0.1, which loss_type 'ipo' ignores"),
        ({"neftune_noise_alpha": 5.0}, "would mistake the noise for a change"),
    ],
)
def test_options_that_don_t_go_together_are_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        OnlineDPOConfig(**options(tmp_path, **changes))


def test_a_policy_that_goes_too_far_from_its_rollout_is_stopped(tmp_path: Path):
    changes = {"num_epochs": 4, "num_mini_batches": 1, "learning_rate": 2.0, "early_stop_kl": 1e-4}
    trainer = online(tmp_path, **changes)
    trainer.train()
    assert trainer.rollout.stopped
    assert "logps/chosen" not in logs_of(trainer)[-1], "steps after the stop train on nothing"


@pytest.mark.parametrize("bf16", [False, True])
def test_only_16_bits_may_round_otherwise_in_the_batches_of_pairs_than_in_the_rollouts(bf16: bool, tmp_path: Path):
    trainer = online(tmp_path, bf16=bf16)
    # Of SmolLM2-135M's in bfloat16 on a GPU, a mean of 0.032 was met.
    assert trainer.ratio_bound(trainer.model) == (0.15 if bf16 else 1e-3)
