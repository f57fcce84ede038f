"""Checkpoints on SIGTERM (`enable_jit_checkpoint`) that a run resumes from exactly."""

from __future__ import annotations

from typing import Any

from transformers import Trainer
from transformers.trainer_jit_checkpoint import JITCheckpointCallback


class CheckpointBetweenSteps(JITCheckpointCallback):
    """Saves on SIGTERM when the next step begins, and ends the training.

    Trainer's saves as soon as it can, within a step or before other callbacks have seen its end: what a rollout or a
    moving reference has done by then, a resumed run would do again.

    Attributes:
        stopped: Whether it has.
    """

    stopped = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save, if SIGTERM came."""
        if self.jit_manager is not None and self.jit_manager.is_checkpoint_requested:
            self.stopped = True
        super().on_step_begin(args, state, control, **kwargs)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the next step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the next step."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the next step."""


class StoppableTrainer(Trainer):
    """A Trainer that SIGTERM stops between two steps, with `enable_jit_checkpoint`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if type(callback) is JITCheckpointCallback:  # made by Trainer, with its handler of the signal
                callback.__class__ = CheckpointBetweenSteps
