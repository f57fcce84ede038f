"""PPO on the real model: quantised bases, the roles that share one base, recomputed activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from hf_align.layout.branches import build_branches
from hf_align.models.reward import RewardModel
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.trainers.pairs import options
from tests.trainers.ppo.test_trainer import logs_of

PROMPTS: Any = [{"prompt": [{"role": "user", "content": text}]} for text in ("Review a film.", "Tweet about lunch.")]
DOCUMENTS = [([504, 2003, 314], [[260, 1092, 28], [253, 2]]), ([504, 1029], [[314, 4461], [260, 2003, 314, 2]])]


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules="all-linear")


@pytest.fixture(scope="module")
def reward_dir(base_dir: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reward adapter on the real model, as training would leave it: its weights are not zero."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("reward")
    model = RewardModel.from_backbone(base_dir, lora=LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    model.save_pretrained(folder)
    return str(folder)


def gradients(trainer: PPOTrainer) -> dict[str, Tensor]:
    """Of log-probs and values of a fixed batch, by parameter."""
    model = cast(Any, trainer.model).train()
    batch = build_branches(DOCUMENTS, pad_token_id=trainer.pad_token_id)
    output = model(batch)
    (output["logps"].sum() + output["values"].sum()).backward()
    actual = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return actual


def same_gradients(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, gradient in left.items():
        assert (gradient - right[name]).norm() <= 1e-3 * gradient.norm() + 1e-9, name


@pytest.mark.slow  # of a tiny model: test_trainer.py
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_adapters_train_on_a_quantised_base(base_dir: str, reward_dir: str, tmp_path: Path, quantization: Any):
    trainer = PPOTrainer(
        base_dir,
        args=PPOConfig(
            **options(
                tmp_path,
                per_device_train_batch_size=4,
                num_samples=2,
                num_ppo_epochs=2,
                max_new_tokens=3,
                max_steps=2,
                layout="branch",
                optim="adamw_torch",
                learning_rate=1e-4,
                value_learning_rate=1e-2,
                value_model="adapter",
            )
        ),
        train_dataset=PROMPTS,
        peft_config=lora(),
        quantization_config=quantization,
        reward=reward_dir,
    )
    model = trainer.model
    with torch.no_grad():  # values that reach the value adapter
        cast(Any, model).value_head.weight.normal_(std=0.02)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    before = gradients(trainer)
    assert before.keys() == trained - {n for n in trained if "lm_head" in n and ".value." in n}
    # Generates, switches to the reward's adapter, to none for the reference, and to the value's.
    trainer.make_rollout(model, 0)
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    same_gradients(before, gradients(trainer))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    first = logs_of(trainer)[0]
    assert first["val/ratio"] == pytest.approx(1, abs=1e-5) and first["policy/approxkl_avg"] < 1e-10
    assert first["objective/kl"] == pytest.approx(0, abs=1e-5)
    still = {n for n, p in model.named_parameters() if torch.equal(p, start[n])}
    assert not {name for name in trained & still if "lora_A" not in name}, "every B matrix and the value head moved"
    assert start.keys() - trained <= still, "base and reward adapter did not"


@pytest.mark.slow
def test_recomputed_activations_give_the_same_gradients_under_two_adapters(base_dir: str, tmp_path: Path):
    actual = []
    for checkpointing in (False, True):
        trainer = PPOTrainer(
            base_dir,
            args=PPOConfig(
                **options(
                    tmp_path,
                    per_device_train_batch_size=2,
                    max_new_tokens=3,
                    num_ppo_epochs=1,
                    max_steps=1,
                    layout="branch",
                    learning_rate=0.0,
                    value_model="adapter",
                    gradient_checkpointing=checkpointing,
                )
            ),
            train_dataset=PROMPTS,
            peft_config=lora(),
            reward=lambda prompts, responses: [float(len(text)) for text in responses],
        )
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in trainer.model.named_parameters():
                if "lora_B" in name or "value_head" in name:
                    parameter.normal_(std=0.02)
        trainer.train()  # one step that changes nothing: Trainer switches checkpointing on, generating off and on again
        layers: Any = trainer.model.get_base_model().model.layers
        assert layers[0].gradient_checkpointing == checkpointing
        actual.append(gradients(trainer))
    same_gradients(*actual)
    assert any(".value." in name for name in actual[0]) and any(".default." in name for name in actual[0])
