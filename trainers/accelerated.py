"""A Trainer whose model computes with patches while it trains or evaluates, and without them before and after."""

from __future__ import annotations

import logging as python_logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from hf_align.acceleration.registry import NAMES, Decision, Setting, Use, accelerated, decide, describe

logger = logging.get_logger(__name__)


ACCELERATION = (
    "Faster or leaner ways to compute the same: 'auto' for all that help on this model and machine, 'none', or names "
    f"({', '.join(NAMES)}), as a list or with commas between them. They are on while the trainer trains or evaluates; "
    "a line in the log says which, and why others are not."
)
"""Help of the option that all configs have."""


def follow_log_level(args: TrainingArguments) -> None:
    """Let this package log what `log_level` asks for; Trainer tells transformers alone."""
    if args.log_level == "passive":
        return
    package = python_logging.getLogger("hf_align")
    package.setLevel(args.get_process_log_level())
    if not package.hasHandlers():  # Python's last resort shows warnings only
        package.addHandler(python_logging.StreamHandler())


class AcceleratedTrainer(Trainer):
    """A Trainer with patches; its config has `acceleration`, and in `uses` what a run does with the model."""

    args: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        follow_log_level(self.args)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer's, with patches; a line of the log says which."""
        if self.is_world_process_zero():
            decisions = self._decide()
            logger.info(f"acceleration: {describe(decisions)}")
            for decision in () if self.args.acceleration == "auto" else decisions:
                if decision.reason is not None:
                    logger.warning(f"acceleration: {decision.patch.name!r} stays off: {decision.reason}.")
        with self.accelerated("train"):
            return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trainer's, with patches."""
        with self.accelerated("score"):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer's, with patches."""
        with self.accelerated("score"):
            return super().predict(*args, **kwargs)

    @contextmanager
    def accelerated(self, use: Use) -> Iterator[None]:
        """Let the trainer's models compute with patches for a while."""
        with ExitStack() as stack:
            for model in self.accelerated_models():
                stack.enter_context(accelerated(model, self._setting(use), self.args.acceleration))
            yield

    def accelerated_models(self) -> list[nn.Module]:
        """The models that compute in training; the trained one first."""
        return [self.accelerator.unwrap_model(self.model)]

    def describe_acceleration(self) -> str:
        """Say in a line which patches a run uses, and why it doesn't use others."""
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
