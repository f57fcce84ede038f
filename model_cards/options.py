"""What a card says about the options of a training and its losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_align.fields import as_written
from hf_align.losses.registry import EVERY_OPTION, PREFERENCE_LOSSES

SHOWN_OPTIONS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "gradient_checkpointing",
    "bf16",
    "fp16",
    "seed",
)
HIDDEN_OPTIONS = {
    "acceleration",
    "curriculum",
    "hub_base_model",
    "dataset_num_proc",
    "logging_steps",
    "remove_unused_columns",
}


def hyperparameters(args: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The usual options of `TrainingArguments`, then the fields of our config classes that are set and not idle.

    Args:
        args: The config.
        names: Fields to show instead of all.
    """
    of_trainer = {entry.name for entry in dataclasses.fields(TrainingArguments)}
    added_names = {entry.name for entry in dataclasses.fields(args)} - of_trainer
    usual = {name: getattr(args, name) for name in SHOWN_OPTIONS}
    del usual["num_train_epochs" if usual["max_steps"] > 0 else "max_steps"]
    if losses := getattr(args, "losses", []):
        added_names -= unread_options(args, losses)
    if not getattr(args, "sync_ref_model", False):
        added_names = {name for name in added_names if not name.startswith("ref_model_")}
    added_names -= {*HIDDEN_OPTIONS, *getattr(args, "idle_options", ())}
    added = {name: getattr(args, name) for name in names or sorted(added_names)}
    values = {name: as_written(value) for name, value in (usual | added).items()}
    if losses:
        shown = [Path(each.name).name for each in losses]  # a function's file without its folder
        values["loss_type"] = shown if len(shown) > 1 else shown[0]
    return {
        name: value
        for name, value in values.items()
        if value is not None and value is not False and value not in ([], {})
    }


def describe_loss(loss: Any) -> dict[str, Any]:
    """What a card says of a loss on pairs; of a function of the user's its name, without its file's folder."""
    named = PREFERENCE_LOSSES.get(loss.name)
    if named is None:
        return {"title": Path(loss.name).name, "reference_free": loss.reference_free}
    return {name: getattr(named, name) for name in ("title", "formula", "paper", "arxiv", "reference_free")}


def unread_options(args: Any, losses: Sequence[Any]) -> set[str]:
    """Options at their default that none of these losses reads, as far as it is one of ours."""
    defaults = {entry.name: entry.default for entry in dataclasses.fields(args)}
    unread = {
        option
        for option in EVERY_OPTION
        if not any(each.reads(option) and not each.is_users for each in losses)
        and getattr(args, option, None) == defaults.get(option)
    }
    return unread if args.f_divergence_type == "alpha_divergence" else {*unread, "f_alpha_divergence_coef"}
