"""A run that is resumed from other models than it was started with says so, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.trainer_utils import SaveStrategy

from hf_align import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from hf_align.errors import UserError
from hf_align.models.value import PolicyWithValueHead
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.same_run import SETTINGS
from hf_align.trainers.sft import SFTConfig, SFTTrainer
from hf_align.trainers.start_models import start_changes
from tests.tiny import save_tiny, tiny_tokenizer
from tests.trainers.arguments.runs import DEMONSTRATIONS
from tests.trainers.pairs import options, text_pairs
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

KINDS: dict[str, Any] = {"dpo": (DPOTrainer, DPOConfig), "reward": (RewardTrainer, RewardConfig)}


def build(kind: str, folder: Path, base: Any, steps: int = 1, **given: Any) -> Any:
    shape = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "learning_rate": 0.01}
    settings: Any = options(folder / kind, max_steps=steps, **shape)
    model = str(folder / base) if isinstance(base, str) else base
    if kind == "sft":
        return SFTTrainer(model, SFTConfig(**settings), DEMONSTRATIONS, **given)
    trainer, config = KINDS[kind.split("-")[0]]
    return trainer(model, args=config(**settings), train_dataset=text_pairs(4), **given)


def with_adapter(folder: Path, seed: int) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases, and the checkpoint of one step from `base` of each kind."""
    folder = tmp_path_factory.mktemp("start")
    save_tiny(folder / "base")
    save_tiny(folder / "other", seed=1)
    save_tiny(folder / "turned", rope_theta=500.0)
    save_tiny(folder / "told")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder / "told")
    for kind in ("dpo", "reward", "sft"):
        build(kind, folder, "base").train()
    build("dpo-ref", folder, "base", ref_model=str(folder / "other")).train()
    build("dpo-adapter", folder, with_adapter(folder, 1), processing_class=tiny_tokenizer()).train()
    return folder


@pytest.mark.parametrize(
    ("kind", "base", "named"),
    [
        ("dpo", "other", r"with another model at its start \(by its weights\), the reference; give the same"),
        ("dpo", "turned", "with rope_.* in the model's config, not .*500"),
        ("reward", "told", "with another chat template in the tokenizer"),
        ("sft", "told", "with another chat template in the tokenizer"),
        ("dpo-ref", "base", "with another reference, by its weights"),
        ("dpo-adapter", "adapter", "with another reference, by its weights"),
    ],
)
def test_what_would_mix_two_runs_is_refused(kind: str, base: str, named: str, folder: Path):
    given: dict[str, Any] = {"ref_model": str(folder / "turned")} if kind == "dpo-ref" else {}
    if base == "adapter":
        given["processing_class"] = tiny_tokenizer()
    trainer = build(kind, folder, with_adapter(folder, 2) if base == "adapter" else base, 2, **given)
    with pytest.raises(UserError, match=f"^resume_from_checkpoint: .*checkpoint-1 was trained .*{named}"):
        trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 0


def test_an_adapter_does_not_go_on_with_demonstrations_of_a_whole_model(folder: Path):
    trainer = build("sft", folder, "base", 2, peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(UserError, match="checkpoint-1 has a whole model, and the one to train an adapter; leave peft"):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("kind", ["reward", "sft"])
def test_weights_that_leave_nothing_behind_are_told_of(kind: str, folder: Path, caplog: pytest.LogCaptureFixture):
    trainer = build(kind, folder, "other", 2)
    trainer.args.save_strategy = SaveStrategy.NO
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2
    assert "another model at its start (" in caplog.text and "of whose weights none are left" in caplog.text


@pytest.mark.parametrize("kind", ["dpo", "dpo-ref", "dpo-adapter", "sft"])
def test_the_same_models_are_no_change(kind: str, folder: Path, caplog: pytest.LogCaptureFixture):
    given: dict[str, Any] = {"ref_model": str(folder / "other")} if kind == "dpo-ref" else {}
    if kind == "dpo-adapter":
        given["processing_class"] = tiny_tokenizer()
    base = with_adapter(folder, 1) if kind == "dpo-adapter" else "base"
    trainer = build(kind, folder, base, **given)  # nothing is left to train
    trainer.train(resume_from_checkpoint=str(folder / kind / "checkpoint-1"))
    assert trainer.state.global_step == 1 and "goes on from" not in caplog.text
    assert str(folder) not in (folder / kind / "checkpoint-1" / SETTINGS).read_text(), "checkpoints may be pushed"


class WithCritic(PPOTrainer):
    """PPO whose values are those of a model from elsewhere."""

    critic: Any

    def load_model(self, model: Any, tokenizer: Any, peft_config: Any, quantization: Any) -> PolicyWithValueHead:
        return PolicyWithValueHead(model, value_model="separate", value_backbone=self.critic)


def with_critic(out: Path, critic: Any, steps: int = 1) -> WithCritic:
    WithCritic.critic = critic
    shape = {"per_device_train_batch_size": 4, "num_mini_batches": 1, "num_ppo_epochs": 1, "max_new_tokens": 3}
    saving = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "learning_rate": 0.01}
    args = PPOConfig(**options(out, max_steps=steps, value_model="separate", **shape, **saving))
    given: dict[str, Any] = {"processing_class": toy_tokenizer(), "reward": toy_reward(3)}
    return WithCritic(toy_model(), args=args, train_dataset=varied_prompts(8), **given)


def test_another_value_model_at_resume_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with_critic(tmp_path, toy_model(1)).train()
    longer = toy_model(1, max_position_embeddings=77)
    with pytest.raises(UserError, match="with max_position_embeddings 2048 in the value model's config, not 77; give"):
        with_critic(tmp_path, longer, 2).train(resume_from_checkpoint=True)
    assert "goes on from" not in caplog.text
    with_critic(tmp_path, toy_model(2), 2).train(resume_from_checkpoint=True)
    assert "with another value model at its start (by its weights), of whose weights none are left." in caplog.text


def start(weights: str | None = "w", **changes: Any) -> dict[str, Any]:
    model = {"name": "a", "config": {"theta": 1}, "weights": weights, "quantization": None}
    return {"model": {**model, **changes}, "reference": {"weights": weights, "as_given": True}}


def test_a_copy_of_the_policy_as_value_model_is_told_of_once():
    def both(weights: str) -> dict[str, Any]:
        return {**start(weights), "value model": start(weights)["model"]}

    assert start_changes(both("w"), both("v"))[0] == ["another model at its start (by its weights), the reference"]
    assert start_changes(both("w"), both("v"))[1] == []
    other = {**start("w"), "value model": start("v")["model"]}
    assert start_changes(both("w"), other)[1] == [
        "another value model at its start (by its weights), of whose weights none are left"
    ]


def test_differences_in_words():
    assert start_changes({}, start()) == ([], []), "of an earlier version"
    assert start_changes(start(), start(None)) == ([], []), "not known of one"
    refused, told = start_changes(start(), start("v"))
    assert (refused, told) == (["another model at its start (by its weights), the reference"], [])
    refused, _ = start_changes(start(), start("v", name="b"))
    assert refused == ["another model at its start ('a', not 'b'), the reference"]
    assert start_changes(start(), start(config={"theta": 1, "new": 2})) == ([], []), "of a later transformers"
    refused, told = start_changes(start(), start(quantization="load_in_4bit"))
    assert (refused, told) == ([], ["quantisation None, not 'load_in_4bit'"])
    quantised = {**start(None, quantization="load_in_4bit"), "reference": {"weights": "v", "as_given": True}}
    refused, told = start_changes(start(), quantised)
    assert (refused, told) == (["another reference, by its weights"], ["quantisation None, not 'load_in_4bit'"])
