"""The record of a trainer's run: `run.sqlite` in its output folder, whatever `report_to` says."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINER_STATE_NAME

from hf_align.algorithms import ALGORITHMS
from hf_align.data.fingerprint import fingerprints_of
from hf_align.files import VALUE_HEAD
from hf_align.models.fingerprint import fingerprint_of
from hf_align.models.wrapper import unwrapped
from hf_align.tracking import RunRecord, RunSession
from hf_align.tracking.writer import Status
from hf_align.trainers.checkpoints import check_checkpoint

logger = logging.getLogger(__name__)

RECORD = (
    "Record the run in output_dir/run.sqlite: options, data, base, versions, metrics and checkpoints, which hf-align "
    "runs lists, compares and plots. False: for a disk that handles SQLite's locks badly."
)
"""Help of the `record` field of all configs."""


class RecordingTrainer(Trainer):
    """A Trainer that records its run from the first step to the last, and evaluations and saves after it.

    Process 0 writes: every log and every checkpoint is one transaction, of some tenths of a millisecond. A run that is
    resumed goes on in its record. Its metrics have the algorithm's prefix there, such as rm/eval_loss.
    """

    _session: RunSession | None = None
    _shared: tuple[RunRecord, str] | None = None
    _data: Mapping[str, Any] = {}
    _recipe: Mapping[str, Any] = {}

    def __init__(self, *args: Any, **kwargs: Any):
        self._reward_as_given = getattr(self, "reward", None)  # later it is a loaded one
        super().__init__(*args, **kwargs)

    def record_in(self, record: RunRecord, stage: str) -> None:
        """Record this trainer's training as a stage of a larger run, in that run's record.

        Args:
            record: The run's; it is ended by who started it.
            stage: Name of the stage, another one for each training.
        """
        self._shared = record, stage

    def describe_data(self, train_dataset: Any, eval_dataset: Any) -> None:
        """Note the fingerprints of the data as it was given, before it is tokenised: in the record and checkpoints."""
        if self.args.process_index == 0:
            self._data = fingerprints_of(train=train_dataset, eval=eval_dataset)

    def describe_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Note what the run was asked for besides the options: names of models, data sets and rewards."""
        self._recipe = {name: value for name, value in recipe.items() if value is not None}

    def wants_record(self) -> bool:
        """Whether this process keeps a record."""
        return bool(getattr(self.args, "record", True)) and self.args.process_index == 0

    # ---- what is recorded ----

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as Trainer does, in a session of the record."""
        if not self.wants_record():
            return super().train(resume_from_checkpoint, *args, **kwargs)
        session = self._session = self._begin(resume_from_checkpoint)
        status: Status = "failed"
        try:
            result = super().train(resume_from_checkpoint, *args, **kwargs)
            status = "finished" if self.state.global_step >= self.state.max_steps else "stopped"
        except KeyboardInterrupt:
            status = "stopped"
            raise
        finally:
            session.end(status)
            if self._shared is None:
                session.record.end(status)
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, and record it."""
        super().log(logs, start_time)
        if self._session is not None:
            logged = self.state.log_history[-1]
            values = {name: value for name, value in logged.items() if name != "step"}
            self._session.log(self._step_of_weights(), values)
            if not self.is_in_train:
                self._session.record.close()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self._session is not None:
            folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
            self._session.checkpoint(folder, self.state.global_step, self._parts(folder))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False, **options: Any) -> None:
        """Save as Trainer does; after a training, the model is recorded as a checkpoint of it."""
        super().save_model(output_dir, _internal_call, **options)
        if not _internal_call:
            self.record_model(Path(str(output_dir or self.args.output_dir)))

    def record_model(self, folder: Path) -> None:
        """Record a saved model as a checkpoint of the training that came before."""
        if self._session is not None and not self.is_in_train:
            self._session.checkpoint(folder, self._step_of_weights(), self._parts(folder))
            self._session.record.close()

    # ---- facts ----

    def _begin(self, resume_from_checkpoint: str | bool | None) -> RunSession:
        algorithm = ALGORITHMS.of_trainer(type(self))
        name, prefix = (algorithm.name, algorithm.prefix) if algorithm else (type(self).__name__,) * 2
        folder, from_step = Path(str(self._get_output_dir(getattr(self, "_trial", None)))), 0
        checkpoint = None
        if resume_from_checkpoint not in (None, False):
            checkpoint = check_checkpoint(resume_from_checkpoint, self.args)
            from_step = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"]
        facts: dict[str, Any] = {"config": self._config(), "data": self._data, "base": describe_base(self.model)}
        if self._shared is None:
            goes_on = checkpoint is not None and checkpoint.resolve().parent == folder.resolve()
            record, stage = RunRecord.start(folder, name, **facts, resume=goes_on), ""
        else:
            record, stage = self._shared
        host = {"device": _device(self.args.device), "processes": self.args.world_size}
        return record.session(stage, prefix=prefix, from_step=from_step, facts={**facts, "host": host})

    def _config(self) -> dict[str, Any]:
        """Options by name, with the adapter's and what a recipe says besides."""
        model = unwrapped(self.accelerator.unwrap_model(self.model), keep_peft=True)
        config = {**self.args.to_dict(), "reward": _described(self._reward_as_given), **self._recipe}
        if isinstance(model, PeftModel):
            config["lora"] = model.active_peft_config.to_dict()
        return {name: value for name, value in config.items() if value is not None}

    def _parts(self, folder: Path) -> dict[str, str]:
        """The models that belong together in a checkpoint, with the reward that it was trained on."""
        algorithm = ALGORITHMS.of_trainer(type(self))
        parts = {"policy" if algorithm is None else algorithm.trains: str(folder)}
        if (folder / VALUE_HEAD).is_file():
            parts["value"] = str(folder)
        reward = self._reward_as_given
        if isinstance(reward, str | os.PathLike):
            parts["reward"] = str(reward) if Path(reward).exists() else f"hub:{reward}"
        return parts

    def _step_of_weights(self) -> int:
        """The step of the weights in memory: after a training with load_best_model_at_end, that of the best ones."""
        best = self.state.best_model_checkpoint
        if not self.is_in_train and self.args.load_best_model_at_end and best is not None:
            return int(re.sub(r".*-", "", Path(best).name))
        return self.state.global_step


def describe_base(model: Any) -> dict[str, Any]:
    """Name and fingerprint of the model that a training starts from, without its adapter.

    Args:
        model: The trainer's model, before a checkpoint is loaded into it.
    """
    inner: Any = unwrapped(model, keep_peft=True)
    if not isinstance(inner, PreTrainedModel | PeftModel):
        return {"name": type(inner).__name__}
    base: Any = inner.get_base_model() if isinstance(inner, PeftModel) else inner
    name = base.name_or_path or type(base).__name__
    try:
        return {"name": name, "fingerprint": fingerprint_of(inner).digest}
    except Exception as error:  # an unusual model: no reason not to train it
        logger.warning(f"{name} has no fingerprint in the run's record: {type(error).__name__}: {error}")
        return {"name": name}


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _described(reward: Any) -> Any:
    """A reward as one would name it: a path, a function's place, a class; with weights, a list."""
    if isinstance(reward, list):
        return [_described(each) for each in reward]
    if isinstance(reward, tuple):
        return [each if isinstance(each, int | float) else _described(each) for each in reward]
    if reward is None or isinstance(reward, str | os.PathLike):
        return reward
    name = getattr(reward, "__qualname__", None)
    return type(reward).__name__ if name is None else f"{reward.__module__}:{name}"
