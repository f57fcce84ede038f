"""Resuming of finished runs, which trains nothing."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from transformers import EarlyStoppingCallback, Trainer
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.trainers.best import patience_used

logger = logging.get_logger(__name__)


@runtime_checkable
class Ends(Protocol):
    """A callback that can end a training; a resumed one takes no further step where it did."""

    def why_over(self) -> str | None:
        """The reason why no steps are left, or None; what it depends on is in the checkpoint."""
        ...


class ResumingTrainer(Trainer):
    """A Trainer whose `train(resume_from_checkpoint=...)` doesn't change a finished run.

    Trainer checks `max_steps` only after a step, so each resume of a finished run takes one more, unless it ended with
    an epoch.
    """

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        over = self._why_over()
        if over is None:
            super()._run_epoch(*args, **kwargs)
            return
        self.control.should_training_stop = True
        if self.is_world_process_zero():
            logger.warning(f"Nothing is trained: the run {over}.")

    def _why_over(self) -> str | None:
        """The reason why no steps are left, or None."""
        if self.state.global_step >= self.state.max_steps:
            return f"is at step {self.state.global_step} of {self.state.max_steps}; raise max_steps to continue"
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, Ends) and (reason := callback.why_over()) is not None:
                return reason
            if not isinstance(callback, EarlyStoppingCallback):
                continue
            if patience_used(self.state) >= callback.early_stopping_patience:
                patience = callback.early_stopping_patience
                return f"was stopped early; raise early_stopping_patience above {patience} to continue"
        return None

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except ValueError as error:
            if "parameter group" not in str(error):
                raise
            raise UserError(
                f"resume_from_checkpoint: {checkpoint} trained other weights than this run would; resume with the "
                "options that it was trained with, such as freeze_layers."
            ) from error

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, without the mean loss of zero steps, which would be 0."""
        if self.state.global_step == getattr(self, "_initial_global_step", None):
            logs.pop("train_loss", None)
        super().log(logs, start_time)
