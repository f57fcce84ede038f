"""Training on a stream of rows: its dataloader, its place in checkpoints, and what all processes have to agree on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils.operations import gather_object
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from hf_align.collators.blocks import Rows
from hf_align.errors import UserError
from hf_align.files import write_json
from hf_align.layout.branches import Branches
from hf_align.layout.compare import longest_documents
from hf_align.models.runner import LayoutRunner
from hf_align.trainers.checkpoints import check_checkpoint
from hf_align.trainers.stream import RowStream

STREAM = "stream.json"
"""File of a checkpoint that says where in its stream the run stood."""


class StreamingTrainer(Trainer):
    """A Trainer whose `train_dataset` may be a `RowStream`.

    To Trainer `max_steps` are one epoch of it. A resumed run goes on with the next row.
    """

    args: Any
    runner: LayoutRunner
    _unfinished: Path | None

    @property
    def stream(self) -> RowStream | None:
        """The training rows, if they are a stream."""
        return self.train_dataset if isinstance(self.train_dataset, RowStream) else None

    def check_later_rows(self, rows: Rows, numbers: Sequence[int]) -> None:
        """Refuse tokenised rows that the model can't be trained on; they came after the stream's first ones."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as Trainer does; a stream begins with its first row, or where the checkpoint's run stood."""
        if self.stream is not None:
            self.stream.rewind()
            if resume_from_checkpoint not in (None, False) and not self.args.ignore_data_skip:
                folder = check_checkpoint(resume_from_checkpoint, self.args)
                self._find_place(folder)
                resume_from_checkpoint = str(folder)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _find_place(self, folder: Path) -> None:
        """Let the stream begin with the first row that the checkpoint's run had not seen."""
        steps = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"]
        batches = steps * self.args.gradient_accumulation_steps
        file, rows = folder / STREAM, batches * self._train_batch_size * self.accelerator.num_processes
        place = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if place is not None and self.args.resume_with_changes:  # perhaps to other rows
            place, rows = None, place["rows"]
        cast(RowStream, self.stream).resume(place, rows=rows, batches=batches)

    def get_train_dataloader(self) -> DataLoader:
        """Trainer's, or of a stream one over the batches of this process."""
        if self.stream is None:
            return super().get_train_dataloader()
        stream, args, accelerator = self.stream, self.args, self.accelerator
        if len(set(gather_object([stream.beginning]))) > 1:
            raise UserError(
                "train_dataset: the processes read different rows, so some would be trained twice and others never; "
                "give its shuffle a seed, and don't split it by process: the trainer does."
            )
        self._announced = 0
        stream.split(self._train_batch_size, accelerator.process_index, accelerator.num_processes)
        stream.accept = self.check_later_rows
        collate = self.data_collator
        # Not prepared by accelerate, which would divide the rows among processes once more.
        return DataLoader(
            stream,
            batch_size=None,
            collate_fn=lambda rows: None if rows is None else collate(rows),
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
        )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of a step; on several processes, all hear of the longest rows of any."""
        batches, count = super().get_batch_samples(*args, **kwargs)
        if self.stream is not None and self.accelerator.num_processes > 1:
            self._announce([batch["branches"] for batch in batches])
        return batches, count

    def _announce(self, batches: Sequence[Branches]) -> None:
        """Have layouts compared on rows longer than all before; no process may do that alone."""
        here = torch.tensor([max(batch.longest for batch in batches)], device=self.accelerator.device)
        longest = int(cast(torch.Tensor, self.accelerator.gather(here)).max())
        if longest <= self._announced:
            return
        self._announced = longest
        documents = [document for batch in batches for document in batch.documents(batch.num_documents)]
        self.runner.expect(gather_object(longest_documents(documents)))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.stream is not None and self._unfinished is not None:  # in a checkpoint, not beside a saved model
            write_json(Path(cast(str, output_dir)) / STREAM, self.stream.state())
