"""What a run is about to compute, for the choice of its layout: see `hf_align.models.runner.RunData`."""

from __future__ import annotations

from typing import Any

from transformers import Trainer

from hf_align.layout.branches import Document
from hf_align.layout.compare import longest_documents
from hf_align.layout.cost import Lengths
from hf_align.trainers.data import batches_of, longest_rows, parts_of, sampled


class RunDataTrainer(Trainer):
    """A Trainer that knows the lengths and the longest rows of its data."""

    _evaluated: Any = None
    """The data set of the last evaluation."""

    def sample_lengths(self) -> list[list[Lengths]]:
        """Lengths of prompts and responses of some batches of training (or else evaluation)."""
        training = self.train_dataset is not None
        rows = parts_of([self.train_dataset if training else self.eval_dataset])[0]
        args = self.args
        size = args.per_device_train_batch_size if training else args.per_device_eval_batch_size
        return self.batch_lengths(sampled(rows), size, training=training)

    def batch_lengths(self, rows: Any, size: int, *, training: bool) -> list[list[Lengths]]:
        """Lengths of the rows' prompts with their responses in batches of `size` rows."""
        columns = zip(rows["prompt_ids"], rows["response_ids"], strict=True)
        return batches_of([(len(prompt), list(map(len, responses))) for prompt, responses in columns], size)

    def document_of(self, row: dict[str, Any]) -> Document:
        """A tokenised row as a document."""
        return row["prompt_ids"], row["response_ids"]

    def longest_documents(self) -> list[Document]:
        """The two documents with the longest rows of training, and those of evaluation."""
        return [*self.longest_of(self.train_dataset), *self.longest_of(self.eval_dataset)]

    def longest_of(self, data: Any) -> list[Document]:
        """The two documents with the longest rows of a tokenised data set, or of a dict of them."""
        parts = [part for part in parts_of([data]) if "prompt_ids" in (getattr(part, "column_names", None) or ())]
        return longest_documents([self.document_of(row) for part in parts for row in longest_rows(part)])

    def planned_tokens(self) -> int:
        """Tokens that the run puts through the model in plain rows, estimated; a backward pass counts as two."""
        steps = self.state.max_steps * self.args.gradient_accumulation_steps
        if steps:
            batches, passes, count = self.sample_lengths(), 3, steps
        else:
            parts = parts_of([self._evaluated or self.eval_dataset or self.train_dataset])
            rows = max(parts, key=len)
            batches = self.batch_lengths(sampled(rows), 1, training=False)
            passes, count = 1, sum(map(len, parts))
        tokens = sum(prompt * len(lengths) + sum(lengths) for batch in batches for prompt, lengths in batch)
        return passes * tokens * count // len(batches)
