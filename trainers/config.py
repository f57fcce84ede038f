"""Options that all trainers on branches share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from transformers import (
    TrainerCallback,
    TrainingArguments,
)

from hf_align.acceleration.registry import Use, names_of
from hf_align.errors import UserError
from hf_align.fields import check_fields
from hf_align.models.precision import choose_precision
from hf_align.trainers.accelerated import ACCELERATION
from hf_align.trainers.arguments.cells import Column
from hf_align.trainers.arguments.check import check_arguments
from hf_align.trainers.arguments.learning import follow_metric
from hf_align.trainers.checkpoints import Kind
from hf_align.trainers.checks import check_compile, check_options
from hf_align.trainers.hub import HUB_BASE
from hf_align.trainers.nonfinite import NAN_FILTER, ON_NONFINITE
from hf_align.trainers.recording import RECORD
from hf_align.trainers.same_run import CHANGES

Callbacks = list[TrainerCallback] | None


@dataclass
class AlignmentConfig(TrainingArguments):
    """`TrainingArguments` plus what every trainer here has."""

    # Metrics of the trainer's evaluations, without `eval_`, those of some kinds of rows, and kind of its checkpoints.
    eval_metrics: ClassVar[tuple[str, ...]] = ("loss",)
    further_metrics: ClassVar[tuple[str, ...]] = ()
    checkpoint_kind: ClassVar[Kind] = "policy"
    # Column of the table of Trainer's options that holds for it.
    column: ClassVar[Column] = "dpo"
    # Uses of the model in a run.
    uses: ClassVar[tuple[Use, ...]] = ("train",)

    bf16: bool | None = field(  # type: ignore[assignment]
        default=None,
        metadata={
            "help": "Compute in bfloat16 autocast. None: if the machine is fast at it, else float16 on GPUs; "
            "False: float32. Trained weights are float32 either way."
        },
    )
    layout: Literal["auto", "branch", "separate"] = field(
        default="auto",
        metadata={
            "help": "'branch' encodes a prompt once for all its responses, 'separate' puts each prompt + response in a "
            "row of its own. 'auto' takes what is less work on the data, by an estimate that it logs; branches only if "
            "the model gives its own numbers in them, on the longest rows of the data."
        },
    )
    row_tokens: int | None = field(
        default=None,
        metadata={
            "range": "[1, inf)",
            "help": "Pack prompts with their responses into rows of this many tokens. None: one prompt per row.",
        },
    )
    activation_recompute: Literal["none", "selective", "full"] = field(
        default="none",
        metadata={
            "help": "Activations to recompute in the backward pass instead of keeping them: 'selective' the cheap ones "
            "(norms, activation functions, attention inputs), 'full' whole layers (the same as gradient_checkpointing)."
        },
    )
    acceleration: str | list[str] = field(default="auto", metadata={"help": ACCELERATION})
    on_nonfinite: Literal["stop", "skip"] = field(default="stop", metadata={"help": ON_NONFINITE})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": NAN_FILTER})
    disable_dropout: bool = field(
        default=True,
        metadata={
            "help": "Set every dropout, LoRA's included, to 0, and keep routers that sample or jitter in evaluation "
            "mode, so that policy and reference compare."
        },
    )
    logging_steps: float = field(
        default=10, metadata={"help": "Log every this many steps; below 1, a share of all steps."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "range": "[1, inf)",
            "help": "Stop after this many evaluations in a row in which metric_for_best_model didn't improve, and put "
            "the best weights back (load_best_model_at_end). None: off.",
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: the trainer checks and tokenises rows itself."}
    )

    resume_with_changes: bool = field(default=False, metadata={"help": CHANGES})
    record: bool = field(default=True, metadata={"help": RECORD})
    hub_base_model: str | None = field(default=None, metadata={"help": HUB_BASE})

    def __post_init__(self) -> None:
        check_fields(self)
        if self.early_stopping_patience is not None:
            self.load_best_model_at_end = True
        check_options(self)
        check_compile(self)
        names_of(self.acceleration)
        self._resolve_recompute()
        choose_precision(self)
        super().__post_init__()
        follow_metric(self)
        check_arguments(self)

    @property
    def order_seed(self) -> int:
        """Seed of the order of rows."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def recomputes(self) -> bool:
        """Whether layers, or their cheap operations, run again in the backward pass."""
        return self.activation_recompute != "none"

    def _resolve_recompute(self) -> None:
        """Make `activation_recompute` and Trainer's own switch say the same."""
        checkpointing = self.gradient_checkpointing or self.activation_checkpointing
        if self.activation_recompute == "selective" and checkpointing:
            raise UserError(
                "activation_recompute='selective' doesn't go with gradient_checkpointing; leave one of them out."
            )
        if checkpointing:
            self.activation_recompute = "full"
        elif self.activation_recompute == "full":
            self.activation_checkpointing = True
