"""Rows of the table: checkpoints, resuming and the Hub."""

from __future__ import annotations

from hf_align.trainers.arguments.cells import differs, refused, row, works

SAVING = (
    row("output_dir", of_run=True),
    row("save_strategy"),
    row("save_steps"),
    row("save_total_limit"),
    row("save_only_model", works("Such a checkpoint can't be resumed; give it as `model` to train on from it.")),
    row("save_on_each_node", untried="several machines"),
    row(
        "enable_jit_checkpoint",
        works("Saves when the next step begins; a resumed run is the same to the bit. Not in ensembles and hybrids."),
    ),
    row(
        "resume_from_checkpoint",
        differs(
            "Read by hf-align's commands (true: the newest checkpoint, false: none); in Python, give it to `train()`."
        ),
        of_run=True,
    ),
    row(
        "ignore_data_skip",
        rollouts=refused("the prompts of a step follow from its number, so none are skipped; leave it out"),
    ),
    row(
        "restore_callback_states_from_checkpoint",
        works("Early stopping goes on counting without it, too."),
    ),
    row("push_to_hub", of_run=True),
    row("hub_model_id", of_run=True),
    row("hub_private_repo", of_run=True),
    row("hub_strategy"),
    row("hub_token", untried="the Hub itself"),
    row("hub_always_push"),
    row("hub_revision", untried="the Hub itself"),
)
