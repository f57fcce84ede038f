"""Rows of the table: what is logged, where and how loudly."""

from __future__ import annotations

from hf_align.trainers.arguments.cells import differs, row, works

AS_LAID_OUT = "Tokens of the batches as they are laid out: in branches a prompt counts once for all its responses"
RECORD = works("Whatever it says, the run is recorded in `run.sqlite`; see `record`.")

LOGS = (
    row("logging_strategy"),
    row("logging_steps"),
    row("logging_first_step"),
    row("logging_nan_inf_filter", works("Off, as it would hide what `on_nonfinite` acts on.")),
    row(
        "include_num_input_tokens_seen",
        pairs=differs(f"{AS_LAID_OUT}."),
        rollouts=differs(f"{AS_LAID_OUT}; those of the updates, not of sampling."),
    ),
    row("log_level"),
    row("log_level_replica", untried="several processes"),
    row("log_on_each_node", untried="several machines"),
    row("disable_tqdm", works("hf-align's commands switch it on, and show a bar of their own.")),
    row("report_to", RECORD),
    row("run_name"),
    row("project", untried="a tracker"),
    row("trackio_space_id", untried="a tracker"),
    row("trackio_bucket_id", untried="a tracker"),
    row("trackio_static_space_id", untried="a tracker"),
    row("skip_memory_metrics"),
)
