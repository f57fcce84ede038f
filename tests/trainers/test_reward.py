"""RewardTrainer: margins, one step compared with TRL's, metrics, trained parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl.trainer.reward_config import RewardConfig as TheirRewardConfig
from trl.trainer.reward_trainer import RewardTrainer as TheirRewardTrainer

from hf_align.errors import UserError
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.tiny import tiny_tokenizer
from tests.trainers.pairs import options, pairs, text_pairs
from tests.trainers.test_dpo import compare_updates, weights_of


def train(model: Any, out: Path, rows: Any, trainer_options: dict[str, Any] | None = None, **changes: Any):
    trainer = RewardTrainer(
        model, args=RewardConfig(**options(out, **changes)), train_dataset=rows, **(trainer_options or {})
    )
    trainer.train()
    return trainer, trainer.state.log_history[0]


def classifier(folder: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)


def test_one_step_equals_trl_s(tiny_model_dir: str, tmp_path: Path):
    rows = text_pairs(2, margin=True)
    ours, log = train(classifier(tiny_model_dir), tmp_path, rows, margin_mode="shift", center_rewards_coefficient=0.01)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    args = TheirRewardConfig(
        **options(tmp_path, gradient_checkpointing=False), center_rewards_coefficient=0.01, pad_token="<|endoftext|>"
    )
    theirs = TheirRewardTrainer(classifier(tiny_model_dir), args=args, train_dataset=rows, processing_class=tokenizer)
    theirs.train()
    assert log["loss"] == pytest.approx(theirs.state.log_history[0]["loss"], abs=1e-4)
    for name in ("accuracy", "margin", "mean_reward", "min_reward", "max_reward"):
        assert log[name] == pytest.approx(theirs.state.log_history[0][name], abs=1e-3), name
    compare_updates(weights_of(classifier(tiny_model_dir)), weights_of(ours.model.model), weights_of(theirs.model))


def test_a_16_bit_model_object_trains_with_lora(tiny_model_dir: str, tmp_path: Path):
    model = classifier(tiny_model_dir).to(torch.bfloat16)
    config = LoraConfig(r=4, target_modules="all-linear")
    trainer, log = train(model, tmp_path, pairs(2), {"peft_config": config})
    assert math.isfinite(log["loss"])
    head = {name: p for name, p in trainer.model.named_parameters() if "modules_to_save" in name}
    assert head and all(p.requires_grad and p.dtype == torch.float32 for p in head.values())


def test_margin_modes_use_the_margin_as_they_say(tiny_model_dir: str, tmp_path: Path):
    for mode, expected in {
        "weight": lambda d, m: m * math.log1p(math.exp(-d)),
        "scale": lambda d, m: math.log1p(math.exp(-m * d)),
        "shift": lambda d, m: math.log1p(math.exp(-(d - m))),
    }.items():
        _, log = train(classifier(tiny_model_dir), tmp_path, pairs(1, margin=True), margin_mode=mode)
        assert log["loss"] == pytest.approx(expected(log["margin"], 2.5), rel=1e-4), mode


def test_what_the_margin_does_is_said_once(tiny_model_dir: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("WARNING", logger="hf_align"):
        train(tiny_model_dir, tmp_path, pairs(2, margin=True))
    assert caplog.text.count("The rows have a margin m: with margin_mode='weight' it multiplies the loss") == 1


@pytest.mark.parametrize(
    ("base", "quantization"),
    [
        ("cut_base_dir", None),
        *(pytest.param("base_dir", bits, marks=pytest.mark.slow) for bits in (None, "8bit", "4bit")),
    ],
)
def test_lora_trains_the_head_on_the_real_model_and_reloads(
    request: pytest.FixtureRequest, tmp_path: Path, base: str, quantization: str | None
):
    base_dir = request.getfixturevalue(base)
    config = LoraConfig(r=4, target_modules="all-linear")  # no task type: TRL would leave the head frozen and unsaved
    trainer, _ = train(
        base_dir,
        tmp_path,
        pairs(4, margin=True),
        {"peft_config": config, "quantization_config": quantization},
        max_steps=4,
        optim="adamw_torch",
        learning_rate=1e-3,
    )
    first, last = trainer.state.log_history[0], trainer.state.log_history[3]
    assert last["loss"] < first["loss"] - 0.05
    head: Any = load_reward_model(base_dir).head
    torch.manual_seed(0)
    trainer.save_model()
    before = trainer.model.score(["Review a movie."], ["A warm, funny film."])
    again = load_reward_model(tmp_path, quantization=quantization)  # type: ignore[arg-type]
    assert again.score(["Review a movie."], ["A warm, funny film."]) == pytest.approx(before, abs=1e-4)
    trained: Any = again.head
    assert not torch.equal(trained.modules_to_save["default"].weight, head.weight)


def test_a_reward_model_object_is_trained_in_place(tiny_model_dir: str, tmp_path: Path):
    model = RewardModel.from_backbone(tiny_model_dir)
    before = weights_of(model)
    trainer, _ = train(model, tmp_path, pairs(2))
    assert trainer.model is model
    assert any(not torch.equal(weight, before[name]) for name, weight in weights_of(model).items())


def test_bad_arguments_are_named(tiny_model_dir: str, tmp_path: Path):
    with pytest.raises(UserError, match="margin_mode is 'add'"):
        RewardConfig(str(tmp_path), margin_mode="add")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="center_rewards_coefficient is -1"):
        RewardConfig(str(tmp_path), center_rewards_coefficient=-1.0)
    with pytest.raises(UserError, match="without a reference"):
        RewardTrainer(tiny_model_dir, ref_model=object(), train_dataset=pairs(2))  # type: ignore[arg-type]
    negative = pairs(2).add_column("margin", [1.0, -1.0])
    with pytest.raises(UserError, match="margin"):
        train(tiny_model_dir, tmp_path, negative)


@pytest.mark.parametrize("adapter", ["none", "new", "given"])
def test_frozen_layers_stay_as_they_are_through_training_saving_and_resuming(
    tiny_model_dir: str, tmp_path: Path, adapter: str
):
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)

    def trainer(out: Path, **changes: Any) -> RewardTrainer:
        torch.manual_seed(0)
        model: Any = RewardModel.from_backbone(tiny_model_dir, lora=lora if adapter == "given" else None)
        given = lora if adapter == "new" else None
        args = RewardConfig(**options(out, **{"max_steps": 2, "freeze_layers": 1, "optim": "adamw_torch"} | changes))
        return RewardTrainer(model, args=args, train_dataset=pairs(4), peft_config=given)

    whole = trainer(tmp_path / "whole", save_strategy="steps", save_steps=1)
    before = {name: parameter.detach().clone() for name, parameter in whole.model.named_parameters()}
    whole.train()
    changed = {name for name, p in whole.model.named_parameters() if not torch.equal(p, before[name])}
    assert any(".layers.1." in name for name in changed) and any("score" in name for name in changed)
    assert not any(".layers.0." in name or "embed_tokens" in name for name in changed)
    assert any(".layers.0." in name and "lora_" in name for name in before) == (adapter == "given")

    resumed = trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    for name, parameter in resumed.model.named_parameters():
        torch.testing.assert_close(parameter, whole.model.get_parameter(name), atol=0, rtol=0)
        assert parameter.requires_grad == whole.model.get_parameter(name).requires_grad, name
    whole.save_model(str(tmp_path / "saved"))
    texts = (["Write a tweet."] * 2, ["So happy!", "Dull."])
    assert load_reward_model(tmp_path / "saved").score(*texts) == pytest.approx(whole.model.score(*texts), abs=1e-5)
    if adapter != "given":
        with pytest.raises(UserError, match=r"resume_from_checkpoint: .* was trained with freeze_layers [^,]+, not 0"):
            trainer(tmp_path / "other", freeze_layers=0).train(
                resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1")
            )


def test_more_frozen_layers_than_the_model_has_are_refused(tiny_model_dir: str, tmp_path: Path):
    with pytest.raises(UserError, match="freeze_layers is 5, and the model has 2 layers"):
        RewardTrainer(tiny_model_dir, args=RewardConfig(**options(tmp_path, freeze_layers=5)), train_dataset=pairs(1))


def test_rewards_are_normalised_on_the_named_set_after_training(
    tiny_model_dir: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = {"eval_dataset": text_pairs(6), "peft_config": LoraConfig(r=2, target_modules=["q_proj"])}
    trainer, _ = train(tiny_model_dir, tmp_path, text_pairs(2), rows, normalize_on="eval", save_strategy="steps")
    scores = [
        trainer.model.score([row["prompt"]], [row[side]])[0]
        for row in text_pairs(6).to_list()
        for side in ("chosen", "rejected")
    ]
    assert sum(scores) == pytest.approx(0, abs=1e-4)
    assert sum(score**2 for score in scores) / len(scores) == pytest.approx(1, abs=1e-4)
    trainer.save_model()
    again = load_reward_model(tmp_path)
    assert again.normalization is not None
    assert (again.normalization.name, again.normalization.rows) == ("eval_dataset", 6)
    assert load_reward_model(tmp_path / "checkpoint-1").normalization is None

    resumed, _ = train(tiny_model_dir, tmp_path, text_pairs(2), rows, normalize_on="eval", save_strategy="steps")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.model.score(["a"], [" b"]) == trainer.model.score(["a"], [" b"]), "a finished run trains nothing"

    with caplog.at_level("WARNING", logger="hf_align"):
        more, _ = train(again, tmp_path / "more", text_pairs(2))
    assert more.model.normalization is None
    assert "were normalised on eval_dataset, which training undoes: the offset is dropped" in caplog.text


def test_length_is_penalised_on_the_named_set_after_training_and_before_normalising(
    tiny_model_dir: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    held_out = Dataset.from_list([{**row, "chosen": row["chosen"] * 3} for row in text_pairs(6).to_list()])
    rows = {"eval_dataset": held_out, "peft_config": LoraConfig(r=2, target_modules=["q_proj"])}
    options = {"length_penalty_on": "eval", "normalize_on": "eval"}
    with caplog.at_level("WARNING", logger="hf_align"):
        trainer, _ = train(tiny_model_dir, tmp_path, text_pairs(2), rows, **options)
    penalty = trainer.model.reward_config.length_penalty
    assert penalty and "a token on eval_dataset: subtracted from now on" in caplog.text
    assert trainer.model.measure_length_penalty(held_out) == pytest.approx(penalty, abs=1e-5)
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    trainer.save_model()
    assert "is subtracted for each token of the response" in (tmp_path / "README.md").read_text()
    again = load_reward_model(tmp_path)
    assert again.score(["a"], [" b"]) == trainer.model.score(["a"], [" b"])
    more, _ = train(again, tmp_path / "more", text_pairs(2))
    assert more.model.reward_config.length_penalty == 0 and "the length penalty is dropped" in caplog.text


def test_a_set_that_cannot_tell_a_length_penalty_is_refused_before_training(tiny_model_dir: str, tmp_path: Path):
    alike = [{"prompt": "a", "chosen": " b", "rejected": " c"}] * 2
    args = RewardConfig(str(tmp_path), length_penalty_on="eval", max_steps=1, report_to="none", use_cpu=True)
    trainer = RewardTrainer(tiny_model_dir, args=args, train_dataset=text_pairs(2), eval_dataset=cast(Any, alike))
    with pytest.raises(UserError, match="eval_dataset doesn't show what length adds to the reward"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_set_to_measure_on_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path: Path):
    for option in ("normalize_on", "length_penalty_on"):
        for sets in ({}, {"eval_dataset": {"a": text_pairs(2)}}):
            given = sets | {"processing_class": tiny_tokenizer()}
            with pytest.raises(UserError, match=f"{option} is 'eval' and eval_dataset isn't one data set; give one"):
                train(str(tmp_path), tmp_path, text_pairs(2), given, **{option: "eval"})
        with pytest.raises(UserError, match=f"{option} is 'test'"):
            RewardConfig(str(tmp_path), **cast(Any, {option: "test"}))


def test_training_of_all_weights_with_another_head_resumes_where_it_was(tiny_model_dir: str, tmp_path: Path):
    settings = {"max_steps": 2, "head": "mlp", "pooling": "mean", "save_strategy": "steps", "save_steps": 1}
    through, _ = train(tiny_model_dir, tmp_path, text_pairs(2), **settings)
    resumed = RewardTrainer(
        tiny_model_dir, args=RewardConfig(**options(tmp_path, **settings)), train_dataset=text_pairs(2)
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    for name, weight in weights_of(through.model).items():
        assert torch.equal(weight, weights_of(resumed.model)[name]), name
