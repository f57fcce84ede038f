"""Saves and checkpoints that are whole or absent, hold no pickles, and load with plain transformers or peft."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from torch import nn
from transformers.trainer_utils import rotate_checkpoints

from hf_align.files import REWARD_FILES, whole_files
from hf_align.models.fingerprint import check_base
from hf_align.models.wrapper import BranchModel
from hf_align.trainers.checkpoints import check_adapter
from hf_align.trainers.checks import check_place
from hf_align.trainers.hub import HubTrainer


@contextmanager
def without_card(model: nn.Module) -> Iterator[None]:
    """Let peft write no card: it names a local base model by its path, and its template is compiled each time."""
    if not isinstance(model, PeftModel):
        yield
        return
    vars(model)["create_or_update_model_card"] = lambda folder: None
    try:
        yield
    finally:
        del vars(model)["create_or_update_model_card"]


class SavingTrainer(HubTrainer):
    """A Trainer that writes models and checkpoints under another name first and renames them."""

    _unfinished: Path | None = None
    """Folder of the checkpoint being written."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save a model that plain transformers or peft loads, without pickles."""
        if not self.args.should_save:
            return
        directory = Path(output_dir or cast(str, self.args.output_dir))
        check_place(directory, "save_model")
        with whole_files(directory) as unfinished:
            model = self.accelerator.unwrap_model(self.model)
            with without_card(getattr(model, "model", model)):
                model.save_pretrained(unfinished, state_dict=state_dict)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(str(unfinished))
            for card in unfinished.rglob("README.md"):
                card.unlink()  # peft's of a value adapter
            outdated = [name for name in REWARD_FILES if not (unfinished / name).exists()]
        for name in outdated:  # of a model with another head, saved here before
            (directory / name).unlink(missing_ok=True)
        if self._unfinished is None:  # no checkpoint
            self._save_card(directory)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        model = self.model if model is None else model
        # Trainer distinguishes adapters from full models by type: pass it the model inside our wrapper.
        inner = model.model if isinstance(model, BranchModel) else model
        check_adapter(inner, resume_from_checkpoint)
        if isinstance(inner, PeftModel):
            check_base(inner, resume_from_checkpoint, "the model to train")
        super()._load_from_checkpoint(resume_from_checkpoint, inner)

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint under another name and rename it, so that resuming never meets a half-written one."""
        run_dir = Path(super()._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        self._unfinished = run_dir / "unfinished-checkpoint"
        if self.args.should_save:
            shutil.rmtree(self._unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        best = self.state.best_global_step
        limit, self.args.save_total_limit = (
            self.args.save_total_limit,
            None,
        )  # rotate below, beside the other checkpoints
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if best == self.state.global_step or (best and (run_dir / f"checkpoint-{best}").is_dir()):
                self.state.best_model_checkpoint = str(run_dir / f"checkpoint-{best}")
            if self.args.should_save:
                self.state.save_to_json(str(self._unfinished / name / "trainer_state.json"))
                shutil.rmtree(run_dir / name, ignore_errors=True)
                os.replace(self._unfinished / name, run_dir / name)
                shutil.rmtree(self._unfinished)
        finally:
            self._unfinished, self.args.save_total_limit = None, limit
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run_dir / name))
        if self.args.should_save:
            rotate_checkpoints(str(run_dir), limit, self.state.best_model_checkpoint)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._unfinished is None else str(self._unfinished)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._unfinished is None:  # else: pushed once it has its name
            super()._push_from_checkpoint(checkpoint_folder)
