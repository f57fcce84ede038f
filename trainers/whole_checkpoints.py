"""Checkpoints that are whole or absent: written aside, flushed, renamed; and deleted under another name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import sort_checkpoints
from transformers.utils import logging

from hf_align.files import flush_all, remove_folder, replace_folder, whole_file, write_json
from hf_align.full_disk import full_disk_told
from hf_align.trainers.disk import DiskNeeds, disk_needs, free_bytes

logger = logging.get_logger(__name__)

UNFINISHED_CHECKPOINT = "unfinished-checkpoint"
"""Folder of an output folder in which a checkpoint is being written."""
ALL_RESULTS = "all_results.json"


class WholeCheckpoints(Trainer):
    """A Trainer that never leaves a folder `checkpoint-N` which looks whole and isn't.

    Checkpoints are written into another folder, flushed to the disk and renamed. If writing fails, what was written is
    removed; on a full disk the error is a `DiskFull` that says how much is missing. Old ones get another name before
    they are deleted.
    """

    _unfinished: Path | None = None
    """Folder of the checkpoint being written."""

    def describe_checkpoint(self, folder: Path) -> None:
        """Add to a checkpoint that is complete otherwise, in process 0."""

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = Path(super()._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # rotate below, beside the others
        try:
            with self._written_aside(run_dir) as unfinished:
                best = self.state.best_global_step
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if best == self.state.global_step or (best and (run_dir / f"checkpoint-{best}").is_dir()):
                    self.state.best_model_checkpoint = str(run_dir / f"checkpoint-{best}")
                if self.args.should_save:
                    self.state.save_to_json(str(unfinished / name / TRAINER_STATE_NAME))
                    self.describe_checkpoint(unfinished / name)
                    flush_all(unfinished / name)
                    replace_folder(unfinished / name, run_dir / name)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run_dir / name))
        if self.args.should_save:
            rotate(run_dir, limit, self.state.best_model_checkpoint)

    @contextmanager
    def _written_aside(self, run_dir: Path) -> Iterator[Path]:
        """An empty folder that `_get_output_dir` names within the block, and that is removed after it."""
        unfinished = self._unfinished = run_dir / UNFINISHED_CHECKPOINT
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            with full_disk_told(unfinished, shown=run_dir, needed=lambda: self._checkpoint_bytes(run_dir)):
                yield unfinished
        finally:
            self._unfinished = None
            if self.args.should_save:
                shutil.rmtree(unfinished, ignore_errors=True)

    def _checkpoint_bytes(self, run_dir: Path) -> int:
        """Size of a checkpoint: that of an earlier one of the run, else an estimate."""
        for folder in reversed(checkpoints_of(run_dir)):
            return _size(folder)
        return round(self._disk_needs().checkpoint)

    def model_bytes(self) -> int:
        """Size of a saved model."""
        return round(self._disk_needs().model)

    def _disk_needs(self) -> DiskNeeds:
        return disk_needs(self.args, self.accelerator.unwrap_model(self.model), max(1, self.state.max_steps))

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """Do what Trainer does before the first step, and warn if the run's checkpoints won't fit on the disk."""
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.args.should_save:
            folder = Path(str(self.args.output_dir))
            existing = sum(_size(each) for each in checkpoints_of(folder))
            if (problem := self._disk_needs().problem(free_bytes(folder) + existing)) is not None:
                logger.warning(f"{problem}. The training begins; it ends with an error when the disk is full.")
        return prepared

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._unfinished is None else str(self._unfinished)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._unfinished is None:  # else: pushed once it has its name
            super()._push_from_checkpoint(checkpoint_folder)

    def save_state(self) -> None:
        """Write Trainer's state into `output_dir`."""
        if self.is_world_process_zero():
            with whole_file(Path(str(self.args.output_dir), TRAINER_STATE_NAME)) as unfinished:
                self.state.save_to_json(str(unfinished))

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Write metrics into `output_dir`, as `SPLIT_results.json`.

        Args:
            split: Name of the data, such as "eval".
            metrics: By name.
            combined: Whether to add them to `all_results.json`, too.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(str(self.args.output_dir))
        write_json(folder / f"{split}_results.json", metrics)
        if combined:
            everything = folder / ALL_RESULTS
            earlier = json.loads(everything.read_text(encoding="utf-8")) if everything.exists() else {}
            write_json(everything, {**earlier, **metrics})


def checkpoints_of(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, the newest last."""
    return [Path(each) for each in sort_checkpoints(str(run_dir))]


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def rotate(run_dir: str | os.PathLike[str], limit: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints of a run until `limit` are left; never the newest or the best one.

    Args:
        run_dir: Folder of the checkpoints.
        limit: Most checkpoints; None or 0 for no limit.
        best: Folder of the best one, if any.
    """
    if not limit or limit < 0:
        return
    checkpoints = checkpoints_of(Path(run_dir))
    kept = {path for path in checkpoints if path == checkpoints[-1] or (best is not None and path == Path(best))}
    others = [path for path in checkpoints if path not in kept]
    for path in others[: max(0, len(checkpoints) - max(limit, len(kept)))]:
        remove_folder(path)
