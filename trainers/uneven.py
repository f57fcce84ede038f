"""Padding rows in the last batch of an epoch on several processes, which must not count."""

from __future__ import annotations

from typing import Any, cast

from transformers import Trainer

REAL_ROWS = "real_rows"
"""Key of a batch for its number of rows before the padding rows."""


def real_rows(trainer: Trainer, batch_rows: int) -> int:
    """Number of rows of the latest training batch that are new in the epoch.

    All processes get batches of one size, so accelerate pads the last ones with rows from the epoch's start.

    Args:
        trainer: The trainer whose `train_dataset` the batch comes from.
        batch_rows: Rows of the batch on this process.
    """
    accelerator: Any = trainer.accelerator
    filled = accelerator.num_processes > 1 and accelerator.even_batches and not trainer.args.dataloader_drop_last
    if not filled or not accelerator.gradient_state.end_of_dataloader:
        return batch_rows
    rows = len(cast(Any, trainer.train_dataset))
    return count_real(rows, batch_rows, accelerator.process_index, accelerator.num_processes)


def count_real(rows: int, batch_rows: int, process: int, processes: int) -> int:
    """Number of rows of a process's last batch that aren't padding.

    Args:
        rows: Rows of an epoch, over all processes.
        batch_rows: Rows of each process's batches.
        process: Number of the process.
        processes: Number of processes.

    Example:
        >>> from hf_align.trainers.uneven import count_real
        >>> [count_real(9, 2, process, 2) for process in range(2)]
        [1, 0]
    """
    together = batch_rows * processes
    left = rows % together or together
    return min(max(left - process * batch_rows, 0), batch_rows)
