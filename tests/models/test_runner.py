"""layout="auto" chooses by estimated work, logs its choice, and respects the user's attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, concatenate_datasets

from hf_align.layout.branches import Branches, build_branches
from hf_align.models.policy import PolicyModel
from hf_align.models.runner import LayoutRunner
from hf_align.trainers.data import SAMPLE_ROWS, batches_of, spread_rows
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, pairs
from tests.trainers.ppo.test_trainer import ppo
from tests.trainers.test_base import same_weights


def rows(prompt: int, response: int, count: int = 4) -> Dataset:
    return Dataset.from_list(
        [{"prompt": "p" * prompt, "chosen": "a" * response, "rejected": "b" * response} for _ in range(count)]
    )


def dpo(out: Path, data: Dataset, implementation: str = "sdpa", **changes: Any) -> DPOTrainer:
    model = tiny_model(attn_implementation=implementation, max_position_embeddings=4096)
    config = DPOConfig(**options(out, **changes))
    return DPOTrainer(model, args=config, train_dataset=data, processing_class=tiny_tokenizer())


def test_prompts_worth_sharing_are_shared(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    trainer = dpo(tmp_path, pairs(4))
    assert trainer.runner.layout_choice is None
    with caplog.at_level("INFO", logger="hf_align"):
        trainer.train()
    assert trainer.runner.layout_choice is not None and trainer.runner.layout_choice.layout == "branch"
    assert not trainer.runner.separate
    lines = [record.message for record in caplog.records if "layout='auto'" in record.message]
    assert len(lines) == 1 and lines[0].startswith("layout='auto' uses 'branch'")
    assert "branches would take" in lines[0] and "tokens instead of" in lines[0]


def test_responses_without_a_prompt_worth_sharing_get_rows_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    # Eager attention computes all pairs of a row; the tiny model's layers are cheap beside them.
    trainer = dpo(tmp_path, rows(4, 400), "eager", max_length=None)
    with caplog.at_level("WARNING", logger="hf_align"):
        trainer.train()
    assert trainer.runner.layout_choice is not None and trainer.runner.layout_choice.layout == "separate"
    assert trainer.runner.separate
    lines = [record.message for record in caplog.records if "layout='auto'" in record.message]
    assert len(lines) == 1 and "uses 'separate', one row per prompt + response: branches would take 1" in lines[0]
    by_hand = dpo(tmp_path, rows(4, 400), "eager", max_length=None, layout="separate")
    by_hand.train()
    same_weights(trainer.model, by_hand.model, atol=0, rtol=0)
    assert by_hand.runner.layout_choice is None, "the user chose"


class Stub(PolicyModel):
    """A policy that only records the layout of batches."""

    def forward(self, branches: Branches) -> Any:  # type: ignore[override]
        return torch.full((len(branches.targets),), float(branches.separate))


def test_attention_without_branch_masks_is_honoured(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = Stub(tiny_model())
    # As after loading with flash attention, which this machine can't run.
    cast(Any, model).config._attn_implementation_internal = "flash_attention_2"
    args = DPOConfig(**options(tmp_path))
    runner = LayoutRunner(args, Accelerator(), lambda: [], lambda: [model], sharded=False)
    batch = build_branches([([1, 2, 3], [[4, 5], [6]])], pad_token_id=0)
    with caplog.at_level("WARNING", logger="hf_align"):
        output, laid_out = runner.run(model, batch)
    assert runner.separate and laid_out.separate and output.tolist() == [1, 1, 1]
    assert "uses 'separate'" in caplog.text and "'flash_attention_2' takes no branch mask" in caplog.text


def test_the_choice_depends_on_the_data_not_on_the_first_batch(tmp_path: Path):
    data = concatenate_datasets([rows(400, 4, 1), rows(4, 400, 7)])
    choices = []
    for seed in (0, 1):
        trainer = dpo(tmp_path, data, "eager", max_length=None, seed=seed, per_device_train_batch_size=1)
        trainer.train()
        choices.append(trainer.runner.layout_choice)
    assert choices[0] == choices[1]


def test_ppo_counts_responses_as_long_as_they_may_be(tmp_path: Path):
    trainer = ppo(tmp_path, num_samples=2, max_new_tokens=3)
    # Eight responses a batch: four prompts of one to four words with two responses each.
    sample = trainer.sample_lengths()
    assert sample[0] == [(length, [3, 3]) for length in (1, 2, 3, 4)]
    assert sum(map(len, sample)) == 12
    trainer.train()
    assert trainer.runner.layout_choice is not None


def test_the_sample_is_spread_over_the_data():
    assert list(spread_rows(3)) == [0, 1, 2]
    spread = spread_rows(10 * SAMPLE_ROWS + 1)
    assert len(spread) <= SAMPLE_ROWS and spread[-1] > 9 * SAMPLE_ROWS
    assert batches_of([(1, [2])] * 5, 2) == [[(1, [2])] * 2, [(1, [2])] * 2, [(1, [2])]]


def test_a_model_without_wrappers_is_not_searched_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Accelerate's search through all modules takes as long as a layer of a small model on a GPU."""
    trainer = dpo(tmp_path, pairs(2))
    branches = build_branches([([5, 6], [[7], [8, 9]])], pad_token_id=0)
    trainer.runner.run(trainer.model, branches)
    wrapped = torch.nn.parallel.DataParallel(trainer.model)
    assert trainer.runner._unwrap(wrapped) is trainer.model
    monkeypatch.setattr(trainer.accelerator, "unwrap_model", None)
    trainer.runner.run(trainer.model, branches)
