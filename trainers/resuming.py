"""Resuming: from a whole checkpoint of the same run, with nothing of it executed; a finished run trains nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # nosec B403 # which torch raises
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import EarlyStoppingCallback
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.fields import as_written
from hf_align.trainers.best import patience_used
from hf_align.trainers.checkpoints import RESUME, check_checkpoint
from hf_align.trainers.same_run import Changes, compare, read_settings, refusal, settings_of, write_settings
from hf_align.trainers.settings import scorer_name
from hf_align.trainers.start_models import describe_start
from hf_align.trainers.whole_checkpoints import WholeCheckpoints

logger = logging.get_logger(__name__)


@runtime_checkable
class Ends(Protocol):
    """A callback that can end a training; a resumed one takes no further step where it did."""

    def why_over(self) -> str | None:
        """The reason why no steps are left, or None; what it depends on is in the checkpoint."""
        ...


SCORERS = ("reward", "judge")
"""Attributes of trainers with what scores a policy's responses."""


class ResumingTrainer(WholeCheckpoints):
    """A Trainer that resumes the run that it is asked for, and says what differs.

    With `resume_from_checkpoint=True` it takes the newest whole checkpoint. Options and data that would make another
    run of it are refused, see `same_run`. A finished run isn't changed: Trainer checks `max_steps` only after a step,
    so each resume would take one more, unless it ended with an epoch.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ()
    """Options of which what a checkpoint holds fits one value only."""
    per_process: ClassVar[bool] = False
    """Whether a checkpoint holds what only the same number of processes can go on with."""
    _data: Mapping[str, Any] = {}
    """Fingerprints of the data, in process 0."""
    _start: Mapping[str, Any] = {}
    """The models that the run starts from."""

    def __init__(self, *args: Any, **kwargs: Any):
        given = {name: getattr(self, name, None) for name in SCORERS}  # later they are loaded ones
        self._scored_by = {name: scorer_name(value) for name, value in given.items() if value is not None}
        super().__init__(*args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as Trainer does, or go on with the run of a whole checkpoint.

        Raises:
            UserError: There is none, or it is another run's.
        """
        if resume_from_checkpoint not in (None, False):
            folder = check_checkpoint(resume_from_checkpoint, self.args)
            self._check_same_run(folder)
            resume_from_checkpoint = str(folder)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def remember_start(self) -> None:
        """Note the models that the run starts from, before anything is trained or loaded into them."""
        reference = getattr(self, "reference", None)
        self._start = describe_start(cast(nn.Module, self.model), self.processing_class, reference)

    def describe_checkpoint(self, folder: Path) -> None:
        """Add what a resumed run must have in common with this one."""
        write_settings(folder, self._settings())

    def _settings(self) -> dict[str, Any]:
        return settings_of(self.args, data=self._data, scored_by=self._scored_by, start=self._start)

    def _check_same_run(self, folder: Path) -> None:
        saved = read_settings(folder)
        if saved is None:  # of an earlier version
            return
        changes = compare(saved, self._settings(), fixed=self.fixed_options, per_process=self.per_process)
        found: list[Any] = [changes.refused, changes.told, changes.final]
        changes = Changes(*broadcast_object_list(found))  # only process 0 knows the data
        if changes.refused and (changes.final or not getattr(self.args, "resume_with_changes", False)):
            raise refusal(RESUME, folder, changes)
        if (differing := [*changes.refused, *changes.told]) and self.is_world_process_zero():
            logger.warning(f"The run goes on from {folder}, which was trained with {'; with '.join(differing)}.")

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
        groups = [set(group) for group in getattr(self.optimizer, "param_groups", [])]
        with _load_explained(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        loaded = [set(group) for group in getattr(self.optimizer, "param_groups", [])] if groups else []
        if any(ours - theirs for ours, theirs in zip(groups, loaded, strict=True)):
            raise _other_optimizer(checkpoint, self.args.optim)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _load_explained(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Load float16's loss scale where this run has one; one that another precision left is of no use."""
        if self.accelerator.scaler is not None:
            with _load_explained(checkpoint):
                super()._load_scaler(checkpoint)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, without the mean loss of zero steps, which would be 0."""
        if self.state.global_step == getattr(self, "_initial_global_step", None):
            logs.pop("train_loss", None)
        super().log(logs, start_time)


@contextmanager
def _load_explained(checkpoint: str | None) -> Iterator[None]:
    """Tell in one sentence why a checkpoint's optimizer, schedule or generators can't be loaded."""
    try:
        yield
    except UnpicklingError:  # whose advice is to run what the file says
        raise UserError(
            f"{RESUME}: {_with_objects(Path(str(checkpoint)))} holds other Python objects than a trainer saves, which "
            "could run any code and are never loaded; take the checkpoint from its source again, or name another."
        ) from None
    except ValueError as error:
        if "parameter group" not in str(error):
            raise
        raise UserError(
            f"resume_from_checkpoint: {checkpoint} trained other weights than this run would; resume with the options "
            "that it was trained with, such as freeze_layers."
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{RESUME}: the optimizer, schedule or generators in {checkpoint} are not those of such a run "
            f"({type(error).__name__}: {error}); resume with the optim and lr_scheduler_type that it was trained with."
        ) from error


def _with_objects(folder: Path) -> Path:
    """The first file that holds more than tensors and plain values."""
    for path in (folder / OPTIMIZER_NAME, folder / SCHEDULER_NAME, folder / SCALER_NAME):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue
        except UnpicklingError:
            return path
    return next(iter(sorted(folder.glob("rng_state*.pth"))), folder)


def _other_optimizer(checkpoint: str | None, optim: Any) -> UserError:
    name = as_written(optim)
    return UserError(
        f"{RESUME}: {checkpoint} was trained with another optimizer than optim={name!r}, and its state is of no use to "
        "it; resume with the optim that it was trained with."
    )
