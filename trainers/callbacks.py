"""Interactive runs of a Trainer: a progress bar, and Ctrl-C that saves a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hf_align.errors import UserError
from hf_align.progress import Advance, Progress
from hf_align.trainers.checkpoints import RESUME
from hf_align.trainers.sigterm import CheckpointBetweenSteps

SHOWN = ("loss", "rewards/accuracies", "accuracy", "objective/scores", "objective/kl")


class _Bar(TrainerCallback):
    """A progress bar, shown once Trainer knows the number of steps."""

    def __init__(self, progress: Progress, label: str, stack: ExitStack) -> None:
        self.progress, self.label, self.stack = progress, label, stack
        self.advance: Advance = lambda done, note: None
        self.note = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.advance = self.stack.enter_context(self.progress.task(self.label, state.max_steps))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.advance(state.global_step, self.note)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        shown = [f"{name.split('/')[-1]} {logs[name]:.3g}" for name in SHOWN if logs and name in logs]
        self.note = ", ".join(shown) or self.note


class _StopAfterStep(TrainerCallback):
    """Ctrl-C ends training after the running step with a checkpoint; a second one ends it at once."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.asked = progress, False

    @contextmanager
    def listening(self) -> Iterator[None]:
        previous = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.progress.line("   Ctrl-C: saving a checkpoint after this step (again: stop at once)", "yellow")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.asked:
            control.should_save = control.should_training_stop = True


def train(trainer: Trainer, progress: Progress, label: str, *, checkpoint: Path | None = None) -> None:
    """Run `trainer.train()` with a progress bar.

    The first Ctrl-C lets the running step finish and saves a checkpoint, the second one stops at once.

    Args:
        trainer: The trainer.
        progress: Receiver of progress.
        label: Label of the bar.
        checkpoint: Checkpoint to resume from.

    Raises:
        KeyboardInterrupt: After Ctrl-C, or after SIGTERM with `enable_jit_checkpoint`.
    """
    stop = _StopAfterStep(progress)
    _remove_printers(trainer)
    with ExitStack() as stack, stop.listening():
        trainer.add_callback(_Bar(progress, label, stack))
        trainer.add_callback(stop)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    callbacks = trainer.callback_handler.callbacks
    if stop.asked or any(isinstance(each, CheckpointBetweenSteps) and each.stopped for each in callbacks):
        raise KeyboardInterrupt


def train_explained(trainer: Trainer, progress: Progress, label: str, *, checkpoint: Path | None = None) -> None:
    """Train as `train` does; options that no optimizer or schedule can be created from are reported in one line.

    Raises:
        UserError: Names the run or the option.
    """
    started = trainer.state.global_step
    try:
        train(trainer, progress, label, checkpoint=checkpoint)
    except UserError:
        raise
    except (ValueError, ImportError) as error:
        if trainer.state.global_step > started:
            raise
        raise UserError(f"{label}: {error}") from error
    except RuntimeError as error:
        if checkpoint is None or "size mismatch" not in str(error):
            raise
        raise UserError(
            f"{RESUME}: the weights in {checkpoint} have other sizes than this run's; give the model and the lora "
            "that they were trained with"
        ) from error


class _Prediction(TrainerCallback):
    def __init__(self, advance: Advance) -> None:
        self.advance, self.done = advance, 0

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.done += 1
        self.advance(self.done, "")


def evaluate(trainer: Trainer, progress: Progress, label: str) -> dict[str, float]:
    """Run `trainer.evaluate()` with a progress bar over its batches and return its metrics."""
    _remove_printers(trainer)
    with progress.task(label, len(trainer.get_eval_dataloader())) as advance:
        trainer.add_callback(_Prediction(advance))
        return trainer.evaluate()


def _remove_printers(trainer: Trainer) -> None:
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
