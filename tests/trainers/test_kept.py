"""A card that can't be written, or another fault after the last step, loses no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from transformers import TrainerCallback

from hf_align import RewardConfig, RewardTrainer
from hf_align.errors import UserError
from hf_align.tracking import read_record
from tests.trainers import killed_saves
from tests.trainers.pairs import options, pairs


def spoil_card(folder: Path) -> None:
    """Put something where the card goes that can't be replaced."""
    if (folder / "README.md").is_file():
        (folder / "README.md").unlink()
    (folder / "README.md").mkdir(parents=True)
    (folder / "README.md" / "notes.txt").touch()


@pytest.mark.parametrize("name", ["dpo", "sft", "ppo"])
def test_a_card_that_cant_be_written_is_told_and_the_model_is_saved(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil_card(tmp_path)
    trainer = getattr(killed_saves, name)(tmp_path, max_steps=2, save_steps=2)
    trainer.train()
    trainer.save_model()
    assert f"The model in {tmp_path} is saved, but its card can't be written: IsADirectoryError" in caplog.text
    files = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= files
    assert read_record(tmp_path)[0].checkpoints[-1].folder.samefile(tmp_path), "it is recorded, too"


class Fails(TrainerCallback):
    """Raises at the end of a training, or after its first step."""

    def __init__(self, *, at_end: bool) -> None:
        self.at_end = at_end

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        if self.at_end:
            raise LookupError("the tracker has no such run")

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if not self.at_end:
            raise LookupError("the tracker has no such run")


@pytest.mark.parametrize("name", ["dpo", "ppo"])
def test_what_fails_after_the_last_step_leaves_a_checkpoint_that_trains_nothing_more(name: str, tmp_path: Path) -> None:
    unbroken = getattr(killed_saves, name)(tmp_path / "unbroken", max_steps=2, save_strategy="no")
    unbroken.train()
    unbroken.save_model()
    broken = getattr(killed_saves, name)(tmp_path / "broken", max_steps=2, save_strategy="no")
    broken.add_callback(Fails(at_end=True))
    with pytest.raises(LookupError):
        broken.train()
    resumed = getattr(killed_saves, name)(tmp_path / "broken", max_steps=2, save_strategy="no")
    assert resumed.train(resume_from_checkpoint=True).global_step == 2
    resumed.save_model()
    weights = [(tmp_path / each / "adapter_model.safetensors").read_bytes() for each in ("unbroken", "broken")]
    assert weights[0] == weights[1]


def test_an_unfinished_training_that_fails_saves_no_checkpoint_that_wasnt_asked_for(tmp_path: Path) -> None:
    trainer = killed_saves.dpo(tmp_path, max_steps=2, save_strategy="no")
    trainer.add_callback(Fails(at_end=False))
    with pytest.raises(LookupError):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


class ZeroHead(TrainerCallback):
    """Makes all rewards equal at the end, as a head that has collapsed."""

    def on_train_end(self, *args: Any, model: Any, **kwargs: Any) -> None:
        for parameter in model.head.parameters():
            parameter.data.zero_()


def test_rewards_that_cant_be_normalised_leave_the_trained_model(tiny_model_dir: str, tmp_path: Path) -> None:
    args = RewardConfig(**options(tmp_path, normalize_on="train"))
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    trainer = RewardTrainer(tiny_model_dir, args=args, train_dataset=pairs(), peft_config=lora, callbacks=[ZeroHead()])
    with pytest.raises(UserError, match="equal"):
        trainer.train()
    assert (tmp_path / "checkpoint-1" / "adapter_model.safetensors").exists()
