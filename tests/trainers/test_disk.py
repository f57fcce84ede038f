"""What a run writes is what `disk_needs` said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from torch import nn

from hf_align import DPOConfig, DPOTrainer, PPOConfig
from hf_align.errors import UserError
from hf_align.trainers.disk import SMALL_FILES, DiskNeeds, disk_needs, free_bytes
from tests.tiny import save_tiny
from tests.trainers.pairs import options, text_pairs

MODEL = nn.Linear(100, 100, bias=False)
BATCH = {"per_device_train_batch_size": 4, "bf16": False, "report_to": "none"}


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("lora", [True, False])
def test_checkpoints_and_model_are_as_large_as_said(
    lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [0]
    remove = shutil.rmtree

    def noted(path: Any, *args: Any, **kwargs: Any) -> None:
        sizes.append(size(tmp_path / "out"))
        remove(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", noted)  # what is there when an old checkpoint is about to go
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1, "max_steps": 3}
    trainer = DPOTrainer(
        save_tiny(tmp_path / "model", hidden_size=256, intermediate_size=512),
        args=DPOConfig(**options(tmp_path / "out", optim="adamw_torch", **saving)),
        train_dataset=text_pairs(4),
        peft_config=LoraConfig(r=64, target_modules="all-linear") if lora else None,
    )
    needs = disk_needs(trainer.args, trainer.model, 3)
    trainer.train()
    (checkpoint,) = (tmp_path / "out").glob("checkpoint-*")
    assert needs.checkpoint - SMALL_FILES < size(checkpoint) < needs.checkpoint
    assert needs.checkpoint > 10 * SMALL_FILES, "not by the slack alone"
    assert (needs.kept, needs.most) == (1, 2)
    trainer.save_model()
    assert needs.left - 4 * SMALL_FILES < size(tmp_path / "out") < needs.left
    assert needs.peak - 4 * SMALL_FILES < max(sizes) < needs.peak


@pytest.mark.parametrize(
    ("values", "kept", "most"),
    [
        ({"save_strategy": "no"}, 0, 0),
        ({"save_strategy": "steps", "save_steps": 30}, 4, 4),  # 30, 60, 90 and the last
        ({"save_strategy": "steps", "save_steps": 0.25}, 4, 4),
        ({"save_strategy": "steps", "save_steps": 10, "save_total_limit": 3}, 3, 4),
        ({"save_strategy": "steps", "save_steps": 60, "save_total_limit": 3}, 2, 2),
        ({"save_strategy": "epoch", "num_train_epochs": 5, "save_total_limit": 1}, 1, 2),
        (
            {
                "save_strategy": "best",
                "eval_strategy": "steps",
                "eval_steps": 10,
                "save_total_limit": 1,
                "metric_for_best_model": "eval_loss",
                "load_best_model_at_end": True,
            },
            2,
            3,
        ),
    ],
)
def test_checkpoints_at_a_time(values: dict[str, Any], kept: int, most: int) -> None:
    needs = disk_needs(DPOConfig("out", **BATCH, **values), MODEL, 100)
    assert (needs.kept, needs.most) == (kept, most)


def test_optimizer_reference_and_rollout_are_part_of_a_checkpoint() -> None:
    def checkpoint(config: type = DPOConfig, **values: Any) -> float:
        return disk_needs(config("out", **BATCH, logging_strategy="no", **values), MODEL, 10).checkpoint

    weights = 4 * 100 * 100
    assert checkpoint() - SMALL_FILES == 3 * weights
    assert checkpoint(save_only_model=True) - SMALL_FILES == weights
    assert checkpoint(optim="sgd") - SMALL_FILES == weights
    assert checkpoint(sync_ref_model=True) - SMALL_FILES == 4 * weights
    rollout = {"max_new_tokens": 50, "max_prompt_length": 100, "rollout_batch_size": 4, "num_mini_batches": 1}
    held = 4 * (50 * (8 + 24) + 100 * 8)
    assert checkpoint(PPOConfig, **rollout) - SMALL_FILES == 3 * weights + held


def test_what_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    needs = DiskNeeds(checkpoint=4e9, kept=2, most=3, model=1e9, record=0.0)
    assert needs.peak == 12e9 and needs.left == 9e9
    assert needs.of_members(3).peak == 2 * 9e9 + 12e9
    needs.check(12e9)
    with pytest.raises(UserError, match=r"about 11\.2 GiB .* and 9\.3 GiB are free; set save_total_limit"):
        needs.check(1e10)
    assert free_bytes(tmp_path / "not" / "there") > 0
