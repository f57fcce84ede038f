"""Resuming from a folder that isn't a checkpoint, or another trainer's, is refused in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from hf_align import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer
from hf_align.errors import UserError
from hf_align.trainers.checkpoints import check_checkpoint, last_checkpoint
from tests.tiny import save_tiny
from tests.trainers import killed_saves
from tests.trainers.pairs import options, text_pairs

NAMES = {"dpo": "DPO, IPO or SFT", "reward": "a reward model's training", "ppo": "PPO"}


def build(kind: str, folder: Path, lora: bool = False) -> Any:
    """A trainer of one step, which saves."""
    trainer: Any = {"dpo": DPOTrainer, "reward": RewardTrainer, "ppo": PPOTrainer}[kind]
    config: Any = {"dpo": DPOConfig, "reward": RewardConfig, "ppo": PPOConfig}[kind]
    changes: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1}
    more: dict[str, Any] = {"peft_config": LoraConfig(r=2, target_modules="all-linear") if lora else None}
    if kind == "ppo":
        more["reward"] = lambda prompts, responses: [0.0] * len(responses)
        changes |= {"max_new_tokens": 2, "num_ppo_epochs": 1}
    args = config(**options(folder / kind, **changes))
    return trainer(save_tiny(folder / "model"), args=args, train_dataset=text_pairs(2), **more)


@pytest.mark.parametrize("lora", [pytest.param(False, marks=pytest.mark.slow), True])
def test_another_trainers_checkpoint(tmp_path: Path, lora: bool):
    for kind in NAMES:
        build(kind, tmp_path, lora).train()
    for kind, name in NAMES.items():
        trainer = build(kind, tmp_path, lora)
        for other, other_name in NAMES.items():
            folder = tmp_path / other / "checkpoint-1"
            if other == kind:
                trainer.train(resume_from_checkpoint=str(folder))
                continue
            with pytest.raises(UserError, match=f"checkpoint-1 is a checkpoint of {other_name}; name one of {name}"):
                trainer.train(resume_from_checkpoint=str(folder))


def test_what_is_no_checkpoint(tmp_path: Path):
    trainer = build("dpo", tmp_path)
    with pytest.raises(
        UserError, match="resume_from_checkpoint: missing is not a checkpoint folder, there is no such fo"
    ):
        trainer.train(resume_from_checkpoint="missing")
    with pytest.raises(
        UserError, match=r"model is not a checkpoint folder, it has no trainer_state.json; name a checkpoi"
    ):
        trainer.train(resume_from_checkpoint=str(tmp_path / "model"))
    with pytest.raises(UserError, match="dpo has no checkpoint yet; leave it out to start"):
        trainer.train(resume_from_checkpoint=True)
    trainer.train(resume_from_checkpoint=False)
    trainer.train(True)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a PPO run with two checkpoints."""
    folder = tmp_path_factory.mktemp("two")
    run_of(folder, 2).train()
    return folder


def run_of(folder: Path, steps: int) -> PPOTrainer:
    return killed_saves.ppo(folder / "run", max_steps=steps)


@pytest.mark.parametrize(
    "name",
    [
        *("trainer_state.json", "resume.json", "adapter_config.json", "adapter_model.safetensors", "optimizer.pt"),
        *("scheduler.pt", "rng_state.pth", "ppo_state.json", "value_head.safetensors", "tokenizer.json"),
    ],
)
@pytest.mark.parametrize("harm", ["cut off", "missing"])
def test_the_newest_whole_checkpoint_is_resumed_from(
    name: str, harm: str, two: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run = shutil.copytree(two / "run", tmp_path / "run")
    path = run / "checkpoint-2" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if harm == "missing":
        path.unlink()
    if (name, harm) == ("resume.json", "missing"):  # as earlier versions saved
        assert last_checkpoint(run) == run / "checkpoint-2"
        return
    assert last_checkpoint(run) == run / "checkpoint-1"
    assert "checkpoint-2 is not resumed from: it is broken, " in caplog.text and name in caplog.text
    args: Any = SimpleNamespace(output_dir=str(run), checkpoint_kind="ppo")
    assert check_checkpoint(True, args) == run / "checkpoint-1"
    if name == "trainer_state.json" and harm == "missing":
        return  # no checkpoint at all, as before
    with pytest.raises(UserError, match=f"checkpoint-2 is broken: {name}.* is .*; name an earlier checkpoint-N folder"):
        check_checkpoint(run / "checkpoint-2", args)


def test_a_run_goes_on_from_the_checkpoint_before_a_broken_one(
    two: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    shutil.copytree(two / "run", tmp_path / "run")
    (tmp_path / "run" / "checkpoint-2" / "optimizer.pt").write_bytes(b"PK")
    trainer = run_of(tmp_path, 2)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2 and caplog.text.count("is not resumed from") == 1
    for name in ("adapter_model.safetensors", "value_head.safetensors"):
        again, before = (load_file(folder / "run" / "checkpoint-2" / name) for folder in (tmp_path, two))
        assert all(torch.equal(again[key], before[key]) for key in before), "as if it had never been broken"


LORA = {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("saved", "resumed", "sentence"),
    [
        (LORA, {**LORA, "lora_alpha": 64}, "an adapter with lora_alpha=8, and the one to train has 64"),
        (LORA, {**LORA, "r": 4}, "an adapter with r=2, and the one to train has 4"),
        (
            LORA,
            {**LORA, "target_modules": ["v_proj"]},
            r"an adapter with target_modules=.* has \['v_proj'\]",
        ),
        (LORA, None, "an adapter, and the model to train has none; resume with its peft_config"),
        (None, LORA, "a whole model, and the one to train an adapter; leave peft_config out"),
        (LORA, {**LORA, "lora_dropout": 0.1, "target_modules": {"q_proj"}}, None),
    ],
    ids=["alpha", "rank", "targets", "adapter", "whole model", "the same"],
)
def test_another_adapter_than_the_checkpoints(tmp_path: Path, saved: Any, resumed: Any, sentence: str | None):
    def trainer(lora: Any) -> DPOTrainer:
        args = DPOConfig(**options(tmp_path / "dpo", save_strategy="steps", save_steps=1))
        peft_config = None if lora is None else LoraConfig(**lora)
        return DPOTrainer(model, args=args, train_dataset=text_pairs(2), peft_config=peft_config)

    model = save_tiny(tmp_path / "model")
    trainer(saved).train()
    if sentence is None:
        trainer(resumed).train(resume_from_checkpoint=True)
        return
    with pytest.raises(UserError, match=f"resume_from_checkpoint: .*checkpoint-.* has {sentence}"):
        trainer(resumed).train(resume_from_checkpoint=True)


def test_the_half_trained_policy_is_not_its_own_reference(tmp_path: Path):
    model, rows = save_tiny(tmp_path / "model"), text_pairs(4)
    settings = options(tmp_path / "out", save_strategy="steps", save_steps=1)
    trainer = DPOTrainer(str(model), args=DPOConfig(**settings), train_dataset=rows, peft_config=LoraConfig(r=2))
    trainer.train()
    checkpoint = str(tmp_path / "out" / "checkpoint-1")
    again = DPOTrainer(checkpoint, args=DPOConfig(**{**settings, "max_steps": 2}), train_dataset=rows)
    with pytest.raises(UserError, match="is also the model, so the half-trained policy would be the reference"):
        again.train(resume_from_checkpoint=checkpoint)
    with_reference: dict[str, Any] = {"ref_model": str(model), "args": DPOConfig(**{**settings, "max_steps": 2})}
    DPOTrainer(checkpoint, train_dataset=rows, **with_reference).train(resume_from_checkpoint=checkpoint)
