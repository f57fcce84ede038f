"""PPO's loop: data of each step, and weight of each token."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainerCallback

from hf_align.errors import UserError
from hf_align.losses.kl import full_kl
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.rollouts.schedule import prompt_numbers
from tests.tiny import save_tiny, tiny_tokenizer
from tests.trainers.pairs import options
from tests.trainers.test_base import same_weights
from tests.trainers.toy import prompts, toy_model, toy_reward, toy_tokenizer, varied_prompts

LENGTH = 3


def ppo(
    out: Path,
    trainer_options: dict[str, Any] | None = None,
    trainer_class: type[PPOTrainer] = PPOTrainer,
    **changes: Any,
) -> PPOTrainer:
    """A trainer on the toy language: 8 prompts, two samples each, two mini-batches of 8 responses."""
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "num_samples": 2,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "max_new_tokens": LENGTH,
        "max_steps": 4,
        "learning_rate": 0.05,
    }
    arguments: dict[str, Any] = {
        "model": toy_model(),
        "args": PPOConfig(**options(out, **{**defaults, **changes})),
        "train_dataset": varied_prompts(12),
        "processing_class": toy_tokenizer(),
        "reward": toy_reward(LENGTH),
    }
    return trainer_class(**{**arguments, **(trainer_options or {})})


def logs_of(trainer: PPOTrainer) -> list[dict[str, float]]:
    return [log for log in trainer.state.log_history if "loss" in log]


def test_the_ratio_is_one_on_the_first_mini_batch_and_not_on_the_next(tmp_path: Path):
    trainer = ppo(tmp_path, temperature=0.7)
    trainer.train()
    first, *others = logs_of(trainer)
    assert first["policy/approxkl_avg"] < 1e-10 and first["val/ratio"] == pytest.approx(1, abs=1e-5)
    assert all(log["policy/approxkl_avg"] > 1e-8 for log in others)
    assert first["objective/kl"] == 0, "the reference is the policy as given"


@pytest.mark.parametrize(
    "changes",
    [
        {"kl_in": "loss", "entropy_coef": 0.1},
        pytest.param(
            {"policy_loss": "reinforce", "num_ppo_epochs": None, "num_mini_batches": 1}, marks=pytest.mark.slow
        ),
        pytest.param({"baseline": "group", "group_scaling": True}, marks=pytest.mark.slow),
        pytest.param({"entropy_coef": 0.1}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
    ],
)
def test_accumulation_changes_nothing(tmp_path: Path, changes: dict[str, Any]):
    runs = []
    for size, accumulation in ((8, 1), (2, 4), (1, 8)):
        trainer = ppo(
            tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, max_steps=8, **changes
        )
        trainer.train()
        rollouts = 8 // trainer.args.steps_per_rollout
        assert trainer.state.global_step == 8
        assert logs_of(trainer)[-1]["episode"] == rollouts * trainer.args.responses_per_rollout
        runs.append(trainer)
    for other in runs[1:]:
        same_weights(runs[0].model, other.model)
        for mine, theirs in zip(logs_of(runs[0]), logs_of(other), strict=True):
            for name in mine.keys() - {"time/generate", "time/score", "time/update", "grad_norm"}:
                assert mine[name] == pytest.approx(theirs[name], abs=1e-4), name


class Remembering(PPOTrainer):
    """PPO that notes the advantages it trains on."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), *inputs["advantages"].tolist()]
        return super().compute_loss(model, inputs, *args, **kwargs)


def test_every_response_is_trained_on_once_an_epoch(tmp_path: Path):
    trainer = ppo(tmp_path, trainer_class=Remembering)
    trainer.train()
    assert isinstance(trainer, Remembering)
    assert trainer.rollout is not None
    tokens = trainer.rollout.tokens["advantages"][trainer.rollout.mask]
    assert sorted(trainer.seen) == sorted([*tokens.tolist(), *tokens.tolist()])
    assert float(tokens.mean()) == pytest.approx(0, abs=1e-5) and float(tokens.std()) == pytest.approx(1, abs=1e-3)


def test_prompts_come_in_passes(tmp_path: Path):
    asked: list[str] = []

    def reward(prompts: list[str], responses: list[str], **columns: Any) -> list[float]:
        asked.extend(columns["name"][::2])
        return [0.0] * len(prompts)

    rows = Dataset.from_list([{"prompt": "a b", "name": str(number)} for number in range(12)])
    trainer = ppo(tmp_path, {"train_dataset": rows, "reward": reward}, max_steps=12)
    trainer.train()
    assert sorted(asked, key=int) == [str(number) for number in range(12) for _ in range(2)], (
        "24 prompts are two passes"
    )
    assert len(set(asked[:8])) == 8
    stream = prompt_numbers(0, 24, 12, seed=1)
    assert sorted(stream[:12]) == list(range(12)) == sorted(stream[12:]) and stream[:12] != stream[12:]
    assert stream[5:17] == prompt_numbers(5, 12, 12, seed=1), "a process may start anywhere"


def test_total_episodes_and_epochs_give_whole_rollouts(tmp_path: Path):
    assert PPOConfig(**options(tmp_path, max_steps=-1, total_episodes=17, num_ppo_epochs=3)).max_steps == 27
    trainer = ppo(tmp_path, max_steps=-1, num_train_epochs=2)
    trainer.train()
    assert trainer.state.global_step == 2 * 2 * 4, "two passes over 12 prompts, 8 a rollout, 4 steps a rollout"


def test_max_grad_norm_acts(tmp_path: Path):
    moved = []
    for limit in (0.01, 1e9):
        trainer = ppo(tmp_path, max_grad_norm=limit, max_steps=1)
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        trainer.train()
        pairs = zip(before, trainer.model.parameters(), strict=True)
        moved.append(float(sum((new - old).square().sum() for old, new in pairs)) ** 0.5)
    assert moved[0] == pytest.approx(0.05 * 0.01, rel=1e-2), "SGD moves by learning rate x clipped norm"
    assert moved[1] > 2 * moved[0]


def test_the_value_head_has_its_own_learning_rate(tmp_path: Path):
    trainer = ppo(tmp_path, value_learning_rate=0.0125, lr_scheduler_type="linear", max_steps=2)
    trainer.train()
    head = {id(parameter) for parameter in trainer.model.value_parameters()}
    optimizer: Any = trainer.optimizer
    for group in optimizer.param_groups:
        of_value = [id(parameter) in head for parameter in group["params"]]
        assert all(of_value) or not any(of_value)
        assert group["initial_lr"] == (0.0125 if any(of_value) else 0.05)
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    assert sum(sizes) == len(list(trainer.model.parameters()))


def test_the_kl_coefficient_follows_the_kl(tmp_path: Path):
    for controller, direction in (("proportional", 1), ("threshold", 1), ("fixed", 0)):
        trainer = ppo(
            tmp_path, kl_controller=controller, target_kl=1e-4, kl_horizon=50, max_steps=12, learning_rate=0.5
        )
        trainer.train()
        coefs = [log["kl_coef"] for log in logs_of(trainer) if "kl_coef" in log]
        assert len(coefs) == 3
        assert (coefs[2] > coefs[1]) == bool(direction), controller


def test_early_stop_skips_the_rest_of_a_rollout_and_counts_its_steps(tmp_path: Path):
    weights: list[torch.Tensor] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            weights.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))

    trainer = ppo(
        tmp_path, {"callbacks": [Watch()]}, early_stop_kl=1e-9, optim="adamw_torch", weight_decay=0.1, max_steps=8
    )
    trainer.train()
    assert trainer.state.global_step == len(weights) == 8 and logs_of(trainer)[-1]["episode"] == 32
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(weights)]
    # Step 1 of a rollout has a ratio of 1, step 2 is over the limit, 3 and 4 are skipped.
    assert changed == [True, False, False, True, True, False, False]


@pytest.mark.parametrize("scale", [True, "shift"])
def test_scores_are_shaped_in_order(tmp_path: Path, scale: bool | str):
    trainer = ppo(tmp_path, scale_rewards=scale, reward_clip=1.0, missing_eos_penalty=5.0, kl_coef=0.1, max_steps=1)
    trainer.train()
    rollout = trainer.rollout
    assert rollout is not None
    shifted = rollout.scores - rollout.scores.mean() if scale == "shift" else rollout.scores
    expected = (shifted / rollout.scores.std()).clamp(-1, 1) - 5.0 * (~rollout.finished)
    log = logs_of(trainer)[0]
    assert log["objective/rlhf_reward"] == pytest.approx(float(expected.mean()), abs=1e-4), (
        "KL is 0 in the first rollout"
    )
    assert log["objective/scores"] == pytest.approx(float(rollout.scores.mean()), abs=1e-5)
    assert log["response/eos_share"] == pytest.approx(float(rollout.finished.float().mean()))


@pytest.mark.parametrize("failure", ["error", "short", "nan", "text"])
def test_a_failing_reward_is_named_and_leaves_nothing_behind(tmp_path: Path, failure: str):
    calls: list[int] = []
    good = toy_reward(LENGTH)

    def reward(prompts: list[str], responses: list[str], **columns: Any) -> list[Any]:
        calls.append(1)
        scores = good(prompts, responses)
        if len(calls) < 2:
            return scores
        if failure == "error":
            raise RuntimeError("the judge is down")
        wrong: dict[str, list[Any]] = {
            "short": scores[1:],
            "nan": [*scores[:3], float("nan"), *scores[4:]],
            "text": ["good", *scores[1:]],
        }
        return wrong[failure]

    trainer = ppo(tmp_path, {"reward": reward}, max_steps=8, save_strategy="steps", save_steps=4, scale_rewards=True)
    with pytest.raises(UserError):
        trainer.train()
    assert trainer.state.global_step == 4 and trainer.score_statistics.count == 16
    assert [name for name in os.listdir(tmp_path) if "checkpoint" in name] == ["checkpoint-4"]


def test_what_is_saved_loads_with_plain_transformers(tmp_path: Path):
    trainer = ppo(tmp_path)
    trainer.train()
    trainer.save_model()
    assert "value_head.safetensors" in os.listdir(tmp_path)
    same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), trainer.model.model, atol=0, rtol=0)


def test_evaluation_samples_the_same_each_time_and_leaves_training_alone(tmp_path: Path):
    def run(**changes: Any) -> PPOTrainer:
        own = {"eval_dataset": varied_prompts(5), "compute_metrics": lambda p: {"shape": p.predictions.shape[0]}}
        trainer = ppo(tmp_path, own, max_steps=6, per_device_eval_batch_size=2, **changes)
        trainer.train()
        return trainer

    plain, evaluated = run(), run(eval_strategy="steps", eval_steps=1)
    same_weights(plain.model, evaluated.model, atol=0, rtol=0)
    metrics = evaluated.evaluate()
    last = [log for log in evaluated.state.log_history if "eval_reward" in log][-1]
    assert metrics["eval_reward"] == last["eval_reward"] and metrics["eval_shape"] == 5
    assert metrics["eval_objective/kl"] == last["eval_objective/kl"]
    assert 1 <= metrics["eval_response/length"] <= LENGTH and 0 <= metrics["eval_response/eos_share"] <= 1
    table = toy_reward(LENGTH)
    assert evaluated.eval_samples
    for sample in evaluated.eval_samples:
        assert table([sample["prompt"]], [sample["response"]])[0] == pytest.approx(sample["reward"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout_batch_size": 8}, r"= 16 responses, but .* = 8 responses; gradient_accumulation_steps=2 or num_mini"),
        ({"num_samples": 3, "rollout_batch_size": None}, "not a multiple of num_samples=3"),
        ({"kl_in": "loss", "kl_estimator": "k1"}, "its expected gradient is 0"),
        ({"kl_estimator": "full"}, "works in the loss only"),
        ({"kl_coef": -1.0}, "kl_coef is -1.0"),
        ({"target_kl": -1.0}, "target_kl is -1.0; it must be above 0"),
        ({"kl_horizon": 0.0}, "kl_horizon is 0.0; it must be above 0"),
        ({"kl_coef": 0.0}, "kl_coef is 0.0; kl_controller='proportional' keeps it between 0.0001 and 10, so start"),
        ({"policy_loss": "grpo"}, "policy_loss is 'grpo'"),
        ({"rollout_engine": "vllm"}, "rollout_engine is 'vllm'; it must be 'static' or 'continuous'"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"lam": 1.5}, "lam is 1.5"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"stop_strings": "."}, "stop_strings is '.'"),
        ({"value_head": "deep"}, "value_head is 'deep'"),
        ({"detach_value_trunk": True, "value_model": "separate"}, "detach_value_trunk is True; it must be False"),
        ({"total_episodes": 64, "max_steps": 3}, "give one of them"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        PPOConfig(**{**options(tmp_path), "per_device_train_batch_size": 8, "num_samples": 2, **changes})


def test_bad_arguments_are_named_before_anything_is_loaded(tmp_path: Path):
    def asks_for_label(prompts, responses, label):
        return label

    model, prompts = toy_model(), Dataset.from_list([{"prompt": "a"}])
    cases: list[tuple[str, dict[str, Any]]] = [
        ("reward is missing", {"reward": None}),
        ("data_collator must be None", {"data_collator": list}),
        ("train_dataset is missing", {"train_dataset": None}),
        ("ref_model is the model itself", {"model": model, "ref_model": model}),
        (
            r"1 row has an empty prompt \(row 1\)",
            {"train_dataset": [{"prompt": "a"}, {"prompt": " "}], "model": "no/model"},
        ),
        ("no column prompt", {"train_dataset": [{"text": "a"}], "model": "no/model"}),
        (
            "more than the 8 positions",
            {"model": toy_model(max_position_embeddings=8), "train_dataset": [{"prompt": "a " * 6}]},
        ),
        ("asks for 'label', which is not a column", {"model": "no/model", "reward": asks_for_label}),
        ("asks for 'label'", {"model": "no/model", "reward": [(1.0, asks_for_label)]}),
        (r"takes \(responses\); its first two", {"model": "no/model", "reward": lambda responses: [0.0]}),
        ("train_dataset must be a datasets.Dataset", {"model": "no/model", "train_dataset": {"a": prompts}}),
    ]
    for message, arguments in cases:
        with pytest.raises(UserError, match=message):
            ppo(tmp_path, arguments)


def test_a_response_longer_than_the_model_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"max_new_tokens is 8 and the model has 8 positions.*; lower it to below 8"):
        ppo(tmp_path, {"model": toy_model(max_position_embeddings=8)}, max_new_tokens=8)


def test_episodes_are_rounded_up_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    shape = {**options(tmp_path), "per_device_train_batch_size": 8, "num_samples": 2, "max_steps": -1}
    with caplog.at_level("WARNING", logger="hf_align"):
        assert PPOConfig(**shape, total_episodes=16).max_steps == 8
        assert not caplog.records
        assert PPOConfig(**shape, total_episodes=17).max_steps == 12
    assert "total_episodes is 17, and a rollout has 8: 24 will be sampled." in caplog.text


def test_a_long_prompt_keeps_its_end(tmp_path: Path, caplog):
    with caplog.at_level("WARNING", logger="hf_align"):
        trainer = ppo(tmp_path, {"train_dataset": [{"prompt": "a b c d"}]}, max_prompt_length=2)
    assert cast(Dataset, trainer.train_dataset)["prompt_ids"][:] == [[3, 4]]
    assert "1 of 1 prompts are cut" in caplog.text


def test_one_prompt_is_enough(tmp_path: Path):
    trainer = ppo(tmp_path, {"train_dataset": prompts(1)})
    trainer.train()
    assert trainer.state.global_step == 4


@pytest.mark.parametrize("adapter", [False, True])
def test_the_exact_kl_is_that_of_the_logits(tmp_path: Path, adapter: bool):
    own = {
        "peft_config": LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
        if adapter
        else None
    }
    trainer = ppo(tmp_path, own, kl_in="loss", kl_estimator="full", temperature=0.8, num_mini_batches=1, max_steps=1)
    trainer.train()
    rollout, model = trainer.rollout, trainer.model
    assert rollout is not None
    batch = trainer.lay_out(rollout, slice(0, 8))
    if not adapter:  # move the policy away from its snapshot
        with torch.no_grad():
            cast(Any, model).get_output_embeddings().weight.mul_(1.5)
    head = trainer.roles(model).reference_head(batch)
    output, laid_out = trainer.runner.run(model, batch, temperature=0.8, reference=head)
    rows, language_model = laid_out.as_separate(), cast(Any, model)
    logits = language_model.inner_forward(rows).logits.flatten(0, 1)[rows.predictors] / 0.8
    with torch.no_grad(), trainer.reference.scored_as(model) as reference:
        ref_logits = cast(Any, reference).inner_forward(rows).logits.flatten(0, 1)[rows.predictors] / 0.8
    expected = full_kl(logits, ref_logits)
    torch.testing.assert_close(output["kl"], expected, atol=1e-5, rtol=1e-4)
    assert expected.max() > 1e-3
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad(output["kl"].sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected.sum(), parameters, allow_unused=True)
    for mine, their in zip(ours, theirs, strict=True):
        assert (mine is None) == (their is None)
        if mine is not None and their is not None:
            torch.testing.assert_close(mine, their, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("value_model", "quantization"),
    [
        *(("shared", "8bit"), ("adapter", "4bit")),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("shared", "4bit"), ("adapter", "8bit"))),
    ],
)
def test_adapters_train_on_a_quantised_base(tmp_path: Path, value_model: str, quantization: str):
    own = {
        "model": save_tiny(tmp_path / "base"),
        "peft_config": LoraConfig(r=4, target_modules="all-linear"),
        "quantization_config": quantization,
        "train_dataset": [{"prompt": "hello"}, {"prompt": "good morning"}],
        "processing_class": tiny_tokenizer(),
        "reward": lambda prompts, responses: [float(len(text)) for text in responses],
    }
    trainer = ppo(tmp_path / "out", own, value_model=value_model, max_steps=3, max_new_tokens=8)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    first = logs_of(trainer)[0]
    assert first["val/ratio"] == pytest.approx(1, abs=1e-5) and first["policy/approxkl_avg"] < 1e-10
    assert first["objective/kl"] == pytest.approx(0, abs=1e-5)
    after = dict(trainer.model.named_parameters())
    still = [name for name, weight in before.items() if torch.equal(weight, after[name]) and "lora_A" not in name]
    assert not still, "every B matrix and the value head moved"


@pytest.mark.parametrize("value_model", ["separate", "adapter"])
def test_value_models_are_saved_beside_the_policy(tmp_path: Path, value_model: str):
    own = {"peft_config": LoraConfig(r=2, target_modules="all-linear")}
    trainer = ppo(tmp_path, own, value_model=value_model)
    trainer.train()
    trainer.save_model()
    trainer.save_model()  # over what is there
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "value_head.safetensors"} <= names
    assert ("value" if value_model == "adapter" else "value_model") in names
