"""Saves and checkpoints that are whole or absent, hold no pickles, and load with plain transformers or peft."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from peft import PeftModel
from torch import nn

from hf_align.files import REWARD_FILES, whole_files
from hf_align.models.fingerprint import check_base
from hf_align.models.wrapper import BranchModel
from hf_align.trainers.checkpoints import check_adapter
from hf_align.trainers.checks import check_place
from hf_align.trainers.kept import KeptTrainer


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


class SavingTrainer(KeptTrainer):
    """A Trainer that writes models and checkpoints under another name first and renames them."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save a model that plain transformers or peft loads, without pickles."""
        if not self.args.should_save:
            return
        directory = Path(output_dir or cast(str, self.args.output_dir))
        check_place(directory, "save_model")
        with whole_files(directory, needed=self.model_bytes) as unfinished:
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
