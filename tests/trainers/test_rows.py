"""Rows with any number of responses: the shared base supports them, trainers on pairs refuse them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from hf_align.collators import PreferenceCollator
from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.models.policy import PolicyModel
from hf_align.models.reward import RewardModel
from hf_align.trainers.base import BranchTrainer
from hf_align.trainers.config import AlignmentConfig
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.reference_logps import add_reference_logps
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, pairs
from tests.trainers.test_base import same_weights

COUNTS = (1, 2, 3, 7)


def rows(counts: tuple[int, ...] = COUNTS, prompt: int = 40) -> Dataset:
    """Tokenised rows with this many responses."""
    draw = random.Random(0)

    def ids(most: int) -> list[int]:
        return [draw.randrange(256) for _ in range(draw.randint(most // 2, most))]

    return Dataset.from_list(
        [
            {"prompt_ids": ids(prompt), "response_ids": [ids(12) for _ in range(count)], "weight": 1.0 + count}
            for count in counts
        ]
    )


class BestOfTrainer(BranchTrainer):
    """A trainer that makes each row's first response more likely than the others together."""

    config_class = AlignmentConfig

    def prepare_rows(self, data: Any, tokenizer: Any, name: str) -> Any:
        return data

    def load_model(self, model: Any, tokenizer: Any, peft_config: Any, quantization: Any) -> PolicyModel:
        return PolicyModel(model)

    def default_collator(self, tokenizer: Any) -> PreferenceCollator:
        return PreferenceCollator(pad_token_id=tokenizer.pad_token_id, row_tokens=self.args.row_tokens)

    def check_room(self, model: Any, *datasets: Any) -> None:
        pass

    def row_losses(
        self, model: nn.Module, inputs: dict[str, Any], branches: Branches
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logps, laid_out = self.runner.run(model, branches)
        of_rows = (laid_out.sum_by_branch(logps) / branches.lengths()).split(list(branches.num_responses))
        losses = torch.stack([of_row.logsumexp(0) - of_row[0] for of_row in of_rows])
        return losses, {"best": torch.stack([of_row[0] for of_row in of_rows])}


def best_of(out: Path, **changes: Any) -> BestOfTrainer:
    args = AlignmentConfig(**options(out, max_steps=3, per_device_train_batch_size=4, **changes))
    trainer = BestOfTrainer(tiny_model(), args=args, train_dataset=rows(), processing_class=tiny_tokenizer())
    trainer.train()
    return trainer


def test_every_layout_trains_the_same(tmp_path: Path):
    plain = best_of(tmp_path, layout="separate")
    assert plain.state.log_history[0]["loss"] > 0.1
    others = [
        best_of(tmp_path, layout="branch"),
        best_of(tmp_path, layout="branch", row_tokens=200),
        best_of(tmp_path, layout="auto"),
        best_of(tmp_path, layout="auto", dataloader_num_workers=1),
    ]
    for other in others:
        same_weights(plain.model, other.model)
        for ours, theirs in zip(plain.state.log_history[:3], other.state.log_history[:3], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    choice = others[-1].runner.layout_choice
    assert choice is not None and choice.layout == "branch" and not others[-1].runner.separate, "compared and taken"


def test_the_reference_scores_every_response_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    args = DPOConfig(**options(tmp_path))
    trainer = DPOTrainer(tiny_model(), args=args, train_dataset=pairs(2), processing_class=tiny_tokenizer())
    settings: dict[str, Any] = {"key": "", "size": 2, "accelerator": trainer.accelerator, "quiet": True}
    scored = add_reference_logps(rows(), trainer._score_reference, **settings)
    assert [len(logps) for logps in scored["ref_logps"]] == list(COUNTS)
    for row in scored:
        for ids, logp in zip(row["response_ids"], row["ref_logps"], strict=True):
            whole = torch.tensor([row["prompt_ids"] + ids])
            with torch.no_grad():
                logits = tiny_model()(whole).logits[0, -len(ids) - 1 : -1].log_softmax(-1)
            assert float(logits[range(len(ids)), ids].sum()) == pytest.approx(logp, abs=1e-4)
    batch = trainer.data_collator([scored[0], scored[2]])
    assert batch["ref_logps"].shape == (4,)


@pytest.mark.parametrize(
    ("counts", "said"),
    [((2, 1), "Row 1 of eval_dataset has 1 response,"), ((3, 2), "Row 0 of eval_dataset has 3 resp")],
)
def test_trainers_on_pairs_refuse_what_is_no_pair(tmp_path: Path, counts: tuple[int, ...], said: str):
    common = {"train_dataset": pairs(2), "processing_class": tiny_tokenizer()}
    reward_model = RewardModel.from_backbone(save_tiny(tmp_path / "model"))
    for trainer in (
        DPOTrainer(tiny_model(), args=DPOConfig(**options(tmp_path)), **common),
        RewardTrainer(reward_model, args=RewardConfig(**options(tmp_path)), **common),
    ):
        with pytest.raises(UserError, match=f"{said}.* and this trainer compares pairs: give every prompt two"):
            trainer.evaluate(rows(counts))
        batch = trainer.data_collator(rows(counts).to_list())
        with pytest.raises(UserError, match=r"Prompt \d of a batch has \d responses?, and this trainer compares pairs"):
            trainer.compute_loss(trainer.model, batch)
        trainer.evaluate(rows((2, 2)))
