"""Whole trainings with each loss on pairs: references that are there or not, passes, functions, resuming."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import TrainerCallback

from hf_align.errors import UserError
from hf_align.losses import PREFERENCE_LOSSES, PreferenceBatch
from hf_align.models.adapters import REFERENCE_ADAPTER
from hf_align.models.loading import load_policy
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from tests.trainers.pairs import options, pairs
from tests.trainers.test_base import same_weights


def trainer_of(model: Any, out: Path, trainer_options: dict[str, Any] | None = None, **changes: Any) -> DPOTrainer:
    args = DPOConfig(**options(out, **changes))
    return DPOTrainer(model, args=args, train_dataset=pairs(2), **(trainer_options or {}))


def passes_of(trainer: DPOTrainer) -> int:
    """Passes through policy and reference in the second step: in the first, layouts and passes are compared."""
    counted: list[int] = []

    class Count(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                for model in trainer.branch_models():
                    model.get_input_embeddings().register_forward_hook(lambda *_: counted.append(1))

    trainer.add_callback(Count())
    trainer.train()
    return len(counted)


# The loss of a pair before training, where policy and reference agree, at beta .1: TRL's formulas at ratios of 1.
FIRST = {
    "sigmoid": math.log(2),
    "sigmoid_norm": math.log(2),
    "hinge": 1.0,
    "ipo": 25.0,
    "robust": math.log(2),
    "exo_pair": 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1),
    "discopop": 0.5 * math.log(2) + 0.5,
    "nca_pair": 2 * math.log(2),
    "bco_pair": 2 * math.log(2),
    "sppo_hard": 50.0,
    "apo_zero": 1.0,
    "apo_down": 1.0,
}


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_a_step_with_each_loss_starts_where_it_must_and_trains(name: str, tiny_model_dir: str, tmp_path: Path) -> None:
    smoothing = {"label_smoothing": 0.1} if name == "exo_pair" else {}
    changes: dict[str, Any] = {"max_steps": 3, "learning_rate": 0.05, "max_grad_norm": 1.0, **smoothing}
    trainer = trainer_of(tiny_model_dir, tmp_path, loss_type=name, **changes)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    if name in FIRST:
        assert logs[0]["loss"] == pytest.approx(FIRST[name], rel=1e-5)
        assert logs[0]["rewards/margins"] == 0
    assert logs[-1]["loss"] < logs[0]["loss"]
    if name == "discopop":  # its slope is positive where policy and reference agree
        assert logs[1]["rewards/margins"] < 0
    elif name == "sft":
        assert logs[-1]["logps/chosen"] > logs[0]["logps/chosen"]
    else:
        assert logs[-1]["rewards/margins"] > logs[0]["rewards/margins"]


@pytest.mark.parametrize("how", ["whole", "new adapter", "incoming adapter"])
def test_simpo_and_sft_hold_and_score_no_reference(tiny_model_dir: str, tmp_path: Path, how: str) -> None:
    model: Any = load_policy(tiny_model_dir, lora=LoraConfig(target_modules="all-linear") if "in" in how else None)
    peft: dict[str, Any] = {"peft_config": LoraConfig(r=4, target_modules="all-linear")} if "new" in how else {}

    def made(loss_type: Any) -> DPOTrainer:
        return trainer_of(
            load_policy(tiny_model_dir) if peft else model, tmp_path, peft, loss_type=loss_type, max_steps=2
        )

    trainer = made(["simpo", "sft"])
    assert not hasattr(trainer, "reference")
    assert REFERENCE_ADAPTER not in getattr(trainer.model.model, "peft_config", {})
    assert passes_of(trainer) == 1
    metrics: Any = trainer.evaluate(pairs(3))
    assert metrics["eval_rewards/chosen"] < 0 and metrics["eval_loss"] > 0
    both = made(["sigmoid", "sft"])
    assert hasattr(both, "reference") and passes_of(both) == 2, "one pass of the reference for both losses"


def test_a_reference_that_no_loss_needs_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reference is scored with loss_type 'simpo' and 'sft'"):
        trainer_of("no/such-model", tmp_path, {"ref_model": "no/other"}, loss_type=["simpo", "sft"])


def test_a_list_of_losses_is_their_weighted_sum(tiny_model_dir: str, tmp_path: Path) -> None:
    alone = [trainer_of(tiny_model_dir, tmp_path, loss_type=name) for name in ("sigmoid", "sft")]
    both = trainer_of(tiny_model_dir, tmp_path, loss_type=["sigmoid", "sft"], loss_weights=[2.0, 0.5])
    first = [trainer.train().training_loss for trainer in (*alone, both)]
    assert first[2] == pytest.approx(2 * first[0] + 0.5 * first[1], rel=1e-6)
    lengths = [len(row["response_ids"][0]) for row in alone[1].train_dataset]  # type: ignore[union-attr]
    assert len({*lengths}) == 2 and alone[1].state.log_history[0]["rewards/margins"] != 0


def test_a_function_trains_as_the_loss_that_it_computes(tiny_model_dir: str, tmp_path: Path) -> None:
    def from_tokens(batch: PreferenceBatch, config: DPOConfig) -> torch.Tensor:
        """SimPO from single tokens."""
        means = batch.token_logps.sum(2) / batch.token_mask.sum(2)
        return -torch.nn.functional.logsigmoid(config.beta * (means[:, 0] - means[:, 1]) - config.simpo_gamma)

    from_tokens.reference_free = True  # type: ignore[attr-defined]
    changes: dict[str, Any] = {"beta": 2.0, "max_steps": 2, "layout": "branch", "learning_rate": 0.01}
    runs = [trainer_of(tiny_model_dir, tmp_path, loss_type=each, **changes) for each in (from_tokens, "simpo")]
    for run in runs:
        run.train()
    same_weights(*(run.model for run in runs), atol=1e-6, rtol=1e-5)
    assert not hasattr(runs[0], "reference")


def test_ld_alpha_counts_tokens_beyond_the_shorter_response_less(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    trainer = trainer_of(tiny_model_dir, tmp_path, ld_alpha=0.25, precompute_ref_log_probs=True, row_tokens=300)
    rows: Any = trainer.train_dataset
    batch = trainer.data_collator([rows[0], rows[1]])
    branches, ones = batch["branches"], torch.ones(len(batch["branches"].targets))
    lengths = [[len(ids) for ids in row["response_ids"]] for row in rows]
    counted = [min(pair) + 0.25 * (length - min(pair)) for pair in lengths for length in pair]
    assert trainer.response_logps(ones, branches).tolist() == pytest.approx(counted)
    torch.testing.assert_close(trainer.reference_logps(trainer.model, branches), batch["ref_logps"], atol=1e-4, rtol=0)
    other = trainer_of(tiny_model_dir, tmp_path, precompute_ref_log_probs=True, row_tokens=300)
    assert other.train_dataset[0]["ref_logps"] != rows[0]["ref_logps"]  # type: ignore[index]


def test_a_run_without_a_reference_resumes_bitwise(tiny_model_dir: str, tmp_path: Path) -> None:
    def run(out: Path) -> DPOTrainer:
        changes: dict[str, Any] = {"loss_type": "simpo", "beta": 2.0, "optim": "adamw_torch", "learning_rate": 0.01}
        return trainer_of(
            tiny_model_dir, out, max_steps=4, save_strategy="steps", save_steps=2, logging_steps=10, **changes
        )

    whole, cut = run(tmp_path / "whole"), run(tmp_path / "cut")
    whole.train()
    cut.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert cut.state.global_step == 4
    same_weights(whole.model, cut.model, atol=0, rtol=0)
