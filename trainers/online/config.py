"""Options of `OnlineDPOTrainer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hf_align.errors import UserError
from hf_align.trainers.arguments.cells import Column
from hf_align.trainers.checkpoints import Kind
from hf_align.trainers.direct import DirectConfig
from hf_align.trainers.rollouts.config import RolloutConfig


@dataclass
class OnlineDPOConfig(DirectConfig, RolloutConfig):
    """Options of `OnlineDPOTrainer` beyond `TrainingArguments`.

    A step is the optimizer step on one mini-batch. Every `num_epochs` x `num_mini_batches` steps new responses are
    generated: a rollout. `per_device_train_batch_size` counts responses, `num_samples` of each prompt, and
    `rollout_batch_size x num_samples = num_mini_batches x per_device_train_batch_size x gradient_accumulation_steps`.

    Example:
        >>> from hf_align import OnlineDPOConfig
        >>> config = OnlineDPOConfig("out", per_device_train_batch_size=8, loss_type="ipo", beta=0.2)
        >>> config.rollout_batch_size, config.num_samples
        (4, 2)
    """

    eval_metrics: ClassVar[tuple[str, ...]] = (
        "reward",
        "win_rate",
        "objective/kl",
        "response/length",
        "response/eos_share",
        "judge",
    )
    checkpoint_kind: ClassVar[Kind] = "online"
    column: ClassVar[Column] = "online"
    epochs_option: ClassVar[str] = "num_epochs"
    method: ClassVar[str] = "online DPO"
    learning_rate: float = field(
        default=1e-6, metadata={"help": "Peak learning rate. 1e-6 suits full fine-tuning; use about 5e-5 with LoRA."}
    )
    num_samples: int = field(
        default=2,
        metadata={"range": "[2, inf)", "help": "Responses sampled for each prompt of a rollout, which are compared."},
    )
    num_epochs: int = field(default=1, metadata={"range": "[1, inf)", "help": "Passes over each rollout."})
    pairs: Literal["best_worst", "all"] = field(
        default="best_worst",
        metadata={
            "help": "Pairs of a prompt's responses to train on: the best with the worst, or all. The same for "
            "num_samples=2."
        },
    )
    labels: Literal["hard", "soft"] = field(
        default="hard",
        metadata={
            "help": "'hard': the better response is chosen, and ties are left out. 'soft': both orders count, by the "
            "judge's preference or the sigmoid of the difference of scores (Bradley-Terry). Only then is the optimum "
            "of 'sigmoid' the reference times exp(score / beta) (docs/how-to/online-dpo.md)."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_device_train_batch_size % self.num_samples:
            raise UserError(
                f"per_device_train_batch_size={self.per_device_train_batch_size} counts responses and must be a "
                f"multiple of num_samples={self.num_samples}, since a prompt's responses are compared; make it one."
            )
