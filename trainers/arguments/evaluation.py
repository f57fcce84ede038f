"""Rows of the table: evaluations, what `compute_metrics` gets, and the best model."""

from __future__ import annotations

from hf_align.trainers.arguments.cells import differs, refused, row, works

NO_METRICS = refused("SFTTrainer takes no compute_metrics; leave it out")
SAMPLES = "evaluations sample responses, of which they keep a few numbers each"

EVALUATION = (
    row("eval_strategy"),
    row("eval_steps"),
    row("eval_delay"),
    row("eval_on_start"),
    row(
        "per_device_eval_batch_size",
        pairs=differs("Counts prompts, each with all its responses."),
        rollouts=differs("Counts prompts; one response to each is sampled."),
        sft=works("`eval_loss` is TRL's mean over batches, so it changes a little with their size."),
    ),
    row(
        "prediction_loss_only",
        pairs=refused("of each row an evaluation keeps a few numbers anyway; leave it out"),
        rollouts=refused(f"{SAMPLES}, and there is no loss; leave it out"),
    ),
    row(
        "eval_do_concat_batches",
        pairs=works("False: `compute_metrics` and `predict()` have a list of arrays, one a batch."),
        rollouts=refused(f"{SAMPLES}; leave it out"),
    ),
    row("eval_accumulation_steps", rollouts=refused(f"{SAMPLES}, and these on the CPU; leave it out")),
    row(
        "eval_use_gather_object",
        branches=refused("what processes gather here are tensors; leave it out"),
        untried="several processes",
    ),
    row(
        "include_for_metrics",
        pairs=works(
            "`loss`: `compute_metrics` gets the loss of each row.",
            values={
                "inputs": "compute_metrics gets predictions in the order of eval_dataset, so take the rows from there; "
                "leave it out"
            },
        ),
        rollouts=refused(f"{SAMPLES}; trainer.eval_samples and trainer.eval_rows have more; leave it out"),
        sft=NO_METRICS,
    ),
    row(
        "batch_eval_metrics",
        pairs=works("`compute_metrics` is called with each batch, and with `compute_result=True` at the last."),
        rollouts=refused(f"{SAMPLES}, which compute_metrics gets together; leave it out"),
        sft=NO_METRICS,
    ),
    row(
        "label_names",
        branches=refused("the order of a row's responses is its label; leave it out"),
        sft=refused("labels are made of the tokens; leave it out"),
    ),
    row("load_best_model_at_end", works("Each new best model is saved, also between two saves by `save_strategy`.")),
    row("metric_for_best_model", rollouts=differs("Has no default, as there is no loss; such as `reward`.")),
    row("greater_is_better"),
)
