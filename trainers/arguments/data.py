"""Rows of the table: how rows are drawn and loaded."""

from __future__ import annotations

from typing import Any

from hf_align.trainers.arguments.cells import refused, row, works

ROLLOUTS = "prompts are few tokens that the rollouts take directly"
NO_WORKERS = refused(f"{ROLLOUTS}, without workers; leave it out")


def without_workers(args: Any) -> str | None:
    """Refuse what is about processes that load rows where there are none; torch would fail once the model is loaded."""
    return None if args.dataloader_num_workers else "no processes load the rows; set dataloader_num_workers, too"


DATA = (
    row(
        "train_sampling_strategy",
        pairs=works(
            "`random` or `sequential`; a stream is read in its own order.",
            values={
                "group_by_length": "a row is a prompt with several responses, which are packed, not filled up to one "
                "length; leave it out (row_tokens packs short rows together)",
                "batch_rebalance": "a batch has per_device_train_batch_size rows, whatever their lengths; leave it out "
                "(row_tokens packs short rows together)",
            },
        ),
        rollouts=refused("each pass over the prompts has its own random order; leave it out"),
    ),
    row(
        "length_column_name",
        branches=refused("rows aren't drawn by their lengths; leave it out"),
        sft=refused("lengths are those in tokens, which are counted here; leave it out"),
    ),
    row(
        "remove_unused_columns",
        branches=refused("the trainer's own columns would be removed; leave it out"),
    ),
    row(
        "dataloader_drop_last",
        pairs=works("Of training rows; evaluations always have all rows. Not with a `curriculum`."),
        rollouts=refused("prompts are drawn without end, so that there is no last batch; leave it out"),
    ),
    row("dataloader_prefetch_factor", rollouts=NO_WORKERS),
    row(
        "dataloader_num_workers",
        pairs=works(
            "Of a data set. A stream is read by the training process itself: a worker would read all of it again."
        ),
        rollouts=NO_WORKERS,
    ),
    row("dataloader_pin_memory", untried="a GPU"),
    row("dataloader_persistent_workers", works(unless=without_workers), rollouts=NO_WORKERS),
    row("dataloader_multiprocessing_context", works(unless=without_workers), rollouts=NO_WORKERS),
    row("dataloader_in_order", rollouts=NO_WORKERS),
)
