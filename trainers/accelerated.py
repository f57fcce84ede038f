"""A Trainer whose models use patches while it trains or evaluates, and only then."""

from __future__ import annotations

import logging as python_logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from hf_align.acceleration.registry import NAMES, Decision, Setting, Use, accelerated, decide, describe
from hf_align.trainers.start_checks import check_optimizer

logger = logging.get_logger(__name__)


ACCELERATION = (
    "Patches that compute the same faster or leaner: 'auto' for all that help on this model and machine, 'none', or "
    f"names ({', '.join(NAMES)}), as a list or separated by commas. They are on while the trainer trains or evaluates; "
    "a log line says which are, and why others are not."
)
"""Help of the `acceleration` field of all configs."""


def follow_log_level(args: TrainingArguments) -> None:
    """Apply `log_level` to this package too; Trainer applies it to transformers only."""
    if args.log_level == "passive":
        return
    package = python_logging.getLogger("hf_align")
    package.setLevel(args.get_process_log_level())
    if not package.hasHandlers():  # Python's last resort shows warnings only
        package.addHandler(python_logging.StreamHandler())


class AcceleratedTrainer(Trainer):
    """A Trainer with patches; its config has `acceleration`, and `uses`, the ways in which a run uses the model."""

    args: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        follow_log_level(self.args)
        if self.args.acceleration != "auto" and self.is_world_process_zero():
            for decision in self._decide():
                if decision.reason is not None:
                    logger.warning(f"acceleration: {decision.patch.name!r} stays off: {decision.reason}.")

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as Trainer does, with patches; a log line names them."""
        if self.is_world_process_zero():
            logger.info(f"acceleration: {self.describe_acceleration()}")
        with self.accelerated("train"):
            return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as Trainer does, with patches."""
        with self.accelerated("score"):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict as Trainer does, with patches."""
        with self.accelerated("score"):
            return super().predict(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make Trainer's optimizer, or see that a given one holds every trainable parameter."""
        given = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if given and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):  # these put others in their place
            check_optimizer(optimizer, self.accelerator.unwrap_model(model or self.model))
        return optimizer

    @contextmanager
    def accelerated(self, use: Use) -> Iterator[None]:
        """Switch patches on for the trainer's models inside this context."""
        with ExitStack() as stack:
            for model in self.accelerated_models():
                stack.enter_context(accelerated(model, self._setting(use), self.args.acceleration))
            yield

    def accelerated_models(self) -> list[nn.Module]:
        """The models used in training, the trained one first."""
        return [self.accelerator.unwrap_model(self.model)]

    def describe_acceleration(self) -> str:
        """Say in one line which patches a run uses, and why not the others."""
        return describe(self._decide())

    def _decide(self) -> list[Decision]:
        return decide(self.accelerated_models()[0], self._setting(*self.args.uses), self.args.acceleration)

    def _setting(self, *uses: Use) -> Setting:
        return Setting(
            uses,
            self.args.device.type,
            sharded=self.is_fsdp_enabled or self.is_deepspeed_enabled,
            recomputes=self.args.recomputes,
        )
