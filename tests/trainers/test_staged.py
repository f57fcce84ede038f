"""Runs through the stages of a curriculum."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align.collators import PreferenceCollator
from hf_align.errors import UserError
from hf_align.model_cards.collect import collect_facts
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.trainers.pairs import options, pairs
from tests.trainers.test_dpo import weights_of

CURRICULUM = {"stages": 2, "batch": [1, 2], "lr_decay": 0.5, "fresh_optimizer": True}
EASY = [-3.0, -2.5, -2.0, -2.0]
"""Difficulties of the four pairs with the largest margins."""


def staged(model: str, out: Path, **changes: Any) -> RewardTrainer:
    fixed = {"optim": "adamw_torch", "learning_rate": 0.01, "lr_scheduler_type": "linear", "max_steps": -1}
    more = {"gradient_accumulation_steps": 2, "curriculum": CURRICULUM}
    args = RewardConfig(**options(out, **{**fixed, **more, **changes}))
    rows = pairs(margin=True).add_column("source", ["original"] * 6 + ["augmented:paraphrase"] * 2)
    return RewardTrainer(model, args=args, train_dataset=rows, eval_dataset=pairs(2), data_collator=Noting())


class Noting:
    """The default collator, and the difficulties of what it got."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.collate = PreferenceCollator(pad_token_id=259)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        self.batches.append([row["difficulty"] for row in rows if "difficulty" in row])
        return self.collate(rows)


def adam_steps(trainer: Any) -> set[int]:
    """Steps that the optimizer's state counts for its weights."""
    return {int(state["step"]) for state in trainer.optimizer.state.values()}


def test_stages_have_their_rows_batches_rate_and_optimizer(tiny_model_dir: str, tmp_path: Path) -> None:
    trainer = staged(tiny_model_dir, tmp_path, eval_strategy="epoch")
    metrics = trainer.train().metrics
    batches = [batch for batch in trainer.data_collator.batches if batch]  # type: ignore[union-attr]
    # 4 rows in 2 steps of 2 micro-batches of 1, then 8 rows in 2 steps of 2 micro-batches of 2.
    assert [len(batch) for batch in batches] == [1] * 4 + [2] * 4
    assert sorted(chain(*batches[:4])) == EASY and len(set(chain(*batches[4:]))) > 4
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["stage"] for log in logs] == [1, 1, 2, 2]
    expected = [0.01, 0.01 * 3 / 4, 0.5 * 0.01 * 2 / 4, 0.5 * 0.01 / 4]  # linear, halved in the second stage
    assert [log["learning_rate"] for log in logs] == pytest.approx(expected)
    assert [log["step"] for log in trainer.state.log_history if "eval_loss" in log] == [2, 4], "a stage is an epoch"
    assert adam_steps(trainer) == {2}, "Adam began anew at step 2"
    facts = collect_facts(trainer)
    assert facts.run["Curriculum"] == (
        "2 stages by margin, 2 steps on 4 rows, 2 steps on 8 rows, learning rate times 0.5 from stage to stage, a "
        "fresh optimizer in each"
    )
    assert facts.data["Of these, made"] == "2 by paraphrase" and "curriculum" not in facts.hyperparameters
    assert metrics["train_samples_per_second"] * metrics["train_runtime"] == pytest.approx(12, rel=0.01)


def test_a_run_resumed_in_any_stage_ends_with_the_same_weights(tiny_model_dir: str, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1}
    whole = staged(tiny_model_dir, tmp_path, **saving)
    whole.train()
    before, losses = weights_of(whole.model), [log["loss"] for log in whole.state.log_history if "loss" in log]
    for step in (2, 3):  # between the stages, and inside the second
        resumed = staged(tiny_model_dir, tmp_path, **saving)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        after = weights_of(resumed.model)
        assert all(torch.equal(before[name], after[name]) for name in before), step
        assert [log["loss"] for log in resumed.state.log_history if "loss" in log] == losses and len(losses) == 4
    for curriculum, message in (
        ({**CURRICULUM, "lr_decay": 0.25}, "has lr_decay=0.5, and this run's 0.25; resume with the curriculum"),
        ({**CURRICULUM, "difficulty": len}, "has difficulty='margin', and this run's 'len'"),
        (None, "had a curriculum, and this one has none"),
    ):
        with pytest.raises(UserError, match=message):
            staged(tiny_model_dir, tmp_path, **saving, curriculum=curriculum).train(str(tmp_path / "checkpoint-2"))


def test_a_run_without_curriculum_is_not_resumed_with_one(tiny_model_dir: str, tmp_path: Path) -> None:
    staged(tiny_model_dir, tmp_path, curriculum=None, max_steps=1, save_strategy="steps", save_steps=1).train()
    with pytest.raises(UserError, match="had no curriculum, and this one has one"):
        staged(tiny_model_dir, tmp_path).train(resume_from_checkpoint=True)


def test_too_many_stages_are_refused_before_rows_are_judged(tiny_model_dir: str, tmp_path: Path) -> None:
    judged: list[Any] = []
    with pytest.raises(UserError, match="curriculum: 9 stages need as many rows, and train_dataset has 8"):
        staged(tiny_model_dir, tmp_path, curriculum={"stages": 9, "difficulty": judged.append})
    assert not judged


def test_one_stage_of_one_pass_takes_every_row_once_with_one_optimizer(tiny_model_dir: str, tmp_path: Path) -> None:
    curriculum = {"stages": 1, "difficulty": "length"}
    trainer = staged(tiny_model_dir, tmp_path, curriculum=curriculum, gradient_accumulation_steps=1)
    trainer.train()
    seen = [*chain(*trainer.data_collator.batches)]  # type: ignore[union-attr]
    rows: Any = trainer.train_dataset
    assert sorted(seen) == sorted(rows["difficulty"]) and trainer.state.global_step == 4
    assert adam_steps(trainer) == {4}
