"""Options of all trainers that sample their own responses, and the arithmetic that ties their batches together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from transformers.utils import logging

from hf_align.acceleration.registry import Use
from hf_align.errors import UserError
from hf_align.fields import as_written, check_fields
from hf_align.trainers.arguments.learning import BY_EVALUATIONS
from hf_align.trainers.moving_reference import ReferenceConfig

logger = logging.get_logger(__name__)


@dataclass
class RolloutConfig(ReferenceConfig):
    """Options of rollouts: prompts, sampling, and the updates that follow.

    A step is the optimizer step on one mini-batch. Every `steps_per_rollout` steps new responses are generated: a
    rollout. `per_device_train_batch_size` counts responses, and
    `rollout_batch_size x num_samples = num_mini_batches x per_device_train_batch_size x gradient_accumulation_steps`.
    """

    uses: ClassVar[tuple[Use, ...]] = ("train", "sample")
    # The field that is the number of passes over each rollout, and the algorithm's name, for messages.
    epochs_option: ClassVar[str]
    method: ClassVar[str]
    rollout_batch_size: int | None = field(
        default=None,
        metadata={
            "range": "[1, inf)",
            "help": "Prompts per process and rollout; times num_samples it must be num_mini_batches x "
            "per_device_train_batch_size x gradient_accumulation_steps. None: computed from these.",
        },
    )
    num_samples: int = field(
        default=1, metadata={"range": "[1, inf)", "help": "Responses sampled for each prompt of a rollout."}
    )
    total_episodes: int | None = field(
        default=None,
        metadata={
            "range": "[1, inf)",
            "help": "Responses to sample in all, over all processes, rounded up to whole rollouts; instead of "
            "max_steps. None: max_steps, or else num_train_epochs passes over the prompts.",
        },
    )
    max_prompt_length: int | None = field(
        default=None,
        metadata={
            "range": "[1, inf)",
            "help": "Maximum tokens of a prompt; a longer one keeps its end. None: no limit.",
        },
    )
    max_new_tokens: int = field(default=64, metadata={"range": "[1, inf)", "help": "Maximum tokens of a response."})
    temperature: float = field(
        default=1.0,
        metadata={"range": "(0, inf)", "help": "Sampling temperature of rollouts; all log-probs refer to it, too."},
    )
    top_p: float = field(
        default=1.0,
        metadata={
            "range": "(0, 1]",
            "help": "Sample rollouts from the most likely tokens with this mass. Log-probs ignore it: 1 is exact.",
        },
    )
    stop_strings: list[str] | None = field(
        default=None,
        metadata={
            "help": "Texts that end a response, as EOS does; the name of a special token means that token. None: only "
            "EOS and the length limit."
        },
    )
    rollout_engine: Literal["static", "continuous"] = field(
        default="static",
        metadata={
            "help": "Sampling engine: 'static' decodes the rollout as one batch, 'continuous' is "
            "transformers' continuous batching over a paged cache. For a custom one set trainer.rollout_engine."
        },
    )
    num_mini_batches: int = field(
        default=1, metadata={"range": "[1, inf)", "help": "Mini-batches, and thus optimizer steps, per pass."}
    )
    missing_eos_penalty: float | None = field(
        default=None,
        metadata={
            "range": "[0, inf)",
            "help": "Subtracted from the score, after scaling and clipping, where the length limit cut a response.",
        },
    )
    early_stop_kl: float | None = field(
        default=None,
        metadata={
            "range": "(0, inf)",
            "help": "Skip a rollout's remaining updates once a mini-batch's mean squared log-ratio to the rollout "
            "policy, halved, exceeds this. Their steps still count. None: off.",
        },
    )
    stop_on_over_optimization: bool = field(
        default=False,
        metadata={
            "help": "Stop when an independent judge falls while the reward doesn't: at over_optimization_patience "
            "evaluations in a row, by more than chance. It takes such a judge and eval_strategy. False: only warn.",
        },
    )
    over_optimization_patience: int = field(
        default=2,
        metadata={
            "range": "[1, inf)",
            "help": "Evaluations in a row at which the judge must be below its maximum for stop_on_over_optimization.",
        },
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.stop_strings, str) or (self.stop_strings is not None and not all(self.stop_strings)):
            raise UserError(f"stop_strings is {self.stop_strings!r}; it must be a list of non-empty texts, or None.")
        self._fit_rollout()
        self._check_metric()
        super().__post_init__()
        if self.total_episodes is not None:
            self._count_steps(self.total_episodes)
        moves, steps = self.ref_model_sync_steps, self.steps_per_rollout
        if self.sync_ref_model and moves % steps:
            below, above = moves // steps * steps, -(-moves // steps) * steps
            raise UserError(
                f"ref_model_sync_steps is {moves}, and a rollout has {steps} steps: the reference moves between "
                f"rollouts, so make it a multiple, {f'{below} or ' if below else ''}{above}."
            )

    def _check_metric(self) -> None:
        """Refuse to follow the loss, Trainer's default, which evaluations here don't have."""
        followed_by = {
            "early_stopping_patience": self.early_stopping_patience is not None,
            "load_best_model_at_end": self.load_best_model_at_end,
            "lr_scheduler_type": as_written(self.lr_scheduler_type) in BY_EVALUATIONS,
        }
        option = next((name for name, follows in followed_by.items() if follows), None)
        if option is not None and self.metric_for_best_model is None:
            raise UserError(
                f"{option} is {getattr(self, option)!r} and follows metric_for_best_model, which is missing; name a "
                f"metric of the evaluations, such as {self.eval_metrics[0]!r}."
            )

    def _count_steps(self, episodes: int) -> None:
        """Set `max_steps` to the whole rollouts that these episodes take."""
        at_once = self.responses_per_rollout * self.world_size
        rollouts = math.ceil(episodes / at_once)
        steps = rollouts * self.steps_per_rollout
        if self.max_steps not in (-1, steps):
            raise UserError("max_steps and total_episodes both set the length of training; give one of them.")
        self.max_steps = steps
        if rollouts * at_once != episodes:
            logger.warning(
                f"total_episodes is {episodes}, and a rollout has {at_once}: {rollouts * at_once} will be sampled."
            )

    @property
    def responses_per_rollout(self) -> int:
        """Responses in a rollout of one process."""
        return self.num_mini_batches * self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def prompts_per_rollout(self) -> int:
        """Prompts in a rollout of one process."""
        return self.responses_per_rollout // self.num_samples

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps from one rollout to the next."""
        return getattr(self, self.epochs_option) * self.num_mini_batches

    def shape(self) -> dict[str, int]:
        """Options that a resumed run must share with the saved one."""
        names = (
            self.epochs_option,
            "num_mini_batches",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "num_samples",
        )
        return {**{name: getattr(self, name) for name in names}, "processes": self.world_size}

    def _fit_rollout(self) -> None:
        """Fill in `rollout_batch_size`, or refuse numbers that don't fit together and name ones that would."""
        needed = self.responses_per_rollout
        terms = (
            f"num_mini_batches={self.num_mini_batches} x "
            f"per_device_train_batch_size={self.per_device_train_batch_size} x "
            f"gradient_accumulation_steps={self.gradient_accumulation_steps} = {needed} responses"
        )
        if self.rollout_batch_size is None:
            if needed % self.num_samples:
                raise UserError(
                    f"{terms} per rollout, which is not a multiple of num_samples={self.num_samples}; make it one."
                )
            self.rollout_batch_size = needed // self.num_samples
            return
        given = self.rollout_batch_size * self.num_samples
        if given == needed:
            return
        fits = []
        for name in ("gradient_accumulation_steps", "num_mini_batches", "per_device_train_batch_size"):
            others = needed // getattr(self, name)
            if given % others == 0:
                fits.append(f"{name}={given // others}")
        if needed % self.num_samples == 0:
            fits.append(f"rollout_batch_size={needed // self.num_samples}")
        raise UserError(
            f"rollout_batch_size={self.rollout_batch_size} x num_samples={self.num_samples} = {given} responses, but "
            f"{terms}; {' or '.join(fits) or 'make both products equal'} would fit."
        )
