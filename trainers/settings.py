"""A run's options and scorers in values that are the same in another process, to compare runs by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_align.fields import as_written

MAY_CHANGE = (
    *("output_dir", "logging_steps", "logging_first_step", "logging_strategy", "report_to", "run_name", "project"),
    *("trackio_space_id", "disable_tqdm", "log_level", "log_level_replica", "save_total_limit", "hub_base_model"),
    *("record", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "dataset_num_proc"),
    *("logging_dir", "resume_with_changes"),
)
"""Options that a resumed run may have other values of: no weight depends on them."""
SECRET = ("hub_token", "push_to_hub_token")


def options_of(args: TrainingArguments) -> dict[str, Any]:
    """The options of a config that weights depend on."""
    names = [each.name for each in dataclasses.fields(args) if each.init and each.name not in (*MAY_CHANGE, *SECRET)]
    values = {name: getattr(args, name) for name in names}
    return {name: plain(as_written(value)) for name, value in values.items()}


def plain(value: Any) -> Any:
    """A value as JSON has it; other objects by the name of their code or class."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        items = [plain(each) for each in value]
        return sorted(items, key=str) if isinstance(value, set) else items
    return getattr(value, "__qualname__", type(value).__name__)


def scorer_name(value: Any) -> Any:
    """A reward or judge in words that are the same in another process."""
    if isinstance(value, list | tuple):
        return [scorer_name(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): scorer_name(each) for key, each in value.items()}
    if isinstance(value, nn.Module):
        return type(value).__name__
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else plain(value)
