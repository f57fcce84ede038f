"""What a resumed run must have in common with the one that it goes on with.

Every checkpoint holds it, in `resume.json`. A run that is resumed with another loss, seed, data set, optimizer or batch
would be a mixture of two that nothing tells of; Trainer takes all of these silently, or ignores the new value.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.files import write_json
from hf_align.trainers.settings import options_of
from hf_align.trainers.start_models import start_changes

SETTINGS = "resume.json"
CHANGES = (
    "Go on from a checkpoint that was trained with another loss, seed, data set, number of rows in a step or other "
    "option that changes what a step does to the weights, which is refused otherwise: the result is a mixture of two "
    "runs. What changed is named either way; settings of the optimizer stay as saved."
)
"""Help of the `resume_with_changes` field of all configs."""
FREE = (
    *("num_train_epochs", "max_steps", "total_episodes", "early_stopping_patience", "load_best_model_at_end"),
    *("metric_for_best_model", "greater_is_better", "stop_on_over_optimization", "over_optimization_patience"),
    *("save_only_model", "save_strategy", "save_steps", "save_on_each_node", "enable_jit_checkpoint"),
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "per_device_eval_batch_size", "eval_packing"),
    *("eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps", "prediction_loss_only"),
    *("include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval", "log_on_each_node"),
    *("logging_nan_inf_filter", "include_num_input_tokens_seen", "trackio_bucket_id", "trackio_static_space_id"),
    *("push_to_hub", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
    *("ignore_data_skip", "restore_callback_states_from_checkpoint", "resume_from_checkpoint"),
    *("dataloader_persistent_workers", "dataloader_multiprocessing_context", "dataloader_in_order", "label_names"),
    *("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend"),
    *("ddp_timeout", "debug", "skip_memory_metrics", "do_train", "do_eval", "do_predict", "local_rank", "on_nonfinite"),
    *("torch_empty_cache_steps", "auto_find_batch_size", "remove_unused_columns", "use_cache", "normalize_on"),
    *("length_penalty_on", "merge"),
)
"""Options, besides those that are free for stages of a hybrid, that don't change what a step does to the weights."""
ROUNDING = (
    *("bf16", "fp16", "tf32", "use_cpu", "layout", "row_tokens", "acceleration", "activation_recompute"),
    *("activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing", "full_determinism"),
    *("gradient_checkpointing_kwargs", "activation_offloading", "padding_free", "pad_to_multiple_of", "rollout_engine"),
    *("torch_compile", "torch_compile_backend", "torch_compile_mode", "use_liger_kernel", "liger_kernel_config"),
    *("fsdp", "fsdp_config", "deepspeed", "accelerator_config", "parallelism_config", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "average_tokens_across_devices"),
)
"""Options that change how a step is computed: named, not refused. Batches are compared by all rows of a step."""
OF_OPTIMIZER = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "value_learning_rate")
"""Options that the optimizer's saved state holds: it goes on with those."""


def settings_of(
    args: Any,
    *,
    data: Mapping[str, Any],
    scored_by: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a run's weights depend on, as JSON has it.

    Args:
        args: The trainer's config.
        data: Fingerprints of its data sets by name.
        scored_by: Rewards and judges in words, by argument.
        start: The models that it starts from, from `describe_start`.
    """
    options = {name: value for name, value in options_of(args).items() if name not in FREE}
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    settings = {
        "options": options,
        "rows_per_step": rows,
        "processes": args.world_size,
        "data": data,
        "scored_by": scored_by or {},
        "start": start or {},
    }
    return json.loads(json.dumps(settings, default=str))


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a checkpoint's settings, with the names of its files, which are complete."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    write_json(folder / SETTINGS, {**settings, "files": names})


def read_settings(folder: Path) -> dict[str, Any] | None:
    """A checkpoint's settings; None where an earlier version saved it."""
    path = folder / SETTINGS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@dataclasses.dataclass
class Changes:
    """Differences between a checkpoint's run and the one that resumes, in words.

    Attributes:
        refused: Those that would make a mixture of two runs.
        told: Those that only change rounding, or what the run is evaluated on.
        final: Whether what is saved fits no other value of one that is refused.
    """

    refused: list[str]
    told: list[str]
    final: bool = False


def compare(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, fixed: Collection[str] = (), per_process: bool = False
) -> Changes:
    """Differences between the settings of a checkpoint and of the run that resumes; of what both have.

    Args:
        saved: The checkpoint's.
        now: The run's.
        fixed: Options of which what is saved fits one value only.
        per_process: Whether a checkpoint holds what only the same number of processes can go on with.
    """
    changes = Changes([], [])
    before, after = saved["options"], now["options"]
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            kind = changes.told if name in ROUNDING else changes.refused
            ignored = ", which the saved optimizer keeps" if name in OF_OPTIMIZER else ""
            kind.append(f"{name} {before[name]!r}, not {after[name]!r}{ignored}")
            changes.final |= name in fixed
    for name in sorted(saved["data"].keys() & now["data"].keys()):
        if saved["data"][name] != now["data"][name]:
            kind = changes.refused if name.startswith("train") else changes.told
            part = "_dataset[".join(name.split("_", 1)) + "]" if "_" in name else f"{name}_dataset"
            counts = [each["data"][name]["rows"] for each in (saved, now)]
            known = len({*counts, None}) > 2  # and different; of a stream it is None
            kind.append(f"other rows in {part}" + (f" ({counts[0]}, not {counts[1]})" if known else ""))
    for name in sorted(saved["scored_by"].keys() & now["scored_by"].keys()):
        if saved["scored_by"][name] != now["scored_by"][name]:
            changes.refused.append(f"{name} {saved['scored_by'][name]!r}, not {now['scored_by'][name]!r}")
    refused, told = start_changes(saved.get("start", {}), now.get("start", {}))
    changes.refused += refused
    changes.told += told
    if saved["processes"] != now["processes"]:
        kind = changes.refused if per_process else changes.told
        kind.append(f"{saved['processes']} processes, not {now['processes']}")
        changes.final |= per_process
    if saved["rows_per_step"] != now["rows_per_step"]:
        changes.refused.append(
            f"{saved['rows_per_step']} rows in a step (per_device_train_batch_size * gradient_accumulation_steps * "
            f"processes), not {now['rows_per_step']}"
        )
    return changes


def refusal(place: str, folder: Path, changes: Changes) -> UserError:
    """The error for changes that make another run."""
    ways = ("give the same", "start anew in another output_dir", "mix the two runs with resume_with_changes=True")
    advice = " or ".join(ways[:2]) if changes.final else f"{ways[0]}, {ways[1]}, or {ways[2]}"
    return UserError(f"{place}: {folder} was trained with {'; with '.join(changes.refused)}; {advice}.")
