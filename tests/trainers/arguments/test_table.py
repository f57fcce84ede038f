"""Every field of the installed transformers' `TrainingArguments` is in the table, refused as it says, or tried."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from hf_align import DPOConfig, OnlineDPOConfig, PPOConfig, RewardConfig
from hf_align.errors import UserError
from hf_align.trainers.arguments.cells import COLUMNS, Column
from hf_align.trainers.arguments.check import default_of
from hf_align.trainers.arguments.table import TABLE
from hf_align.trainers.sft import SFTConfig

TESTS = Path(__file__).parents[2]
CONFIGS: dict[Column, type[Any]] = {
    **{"reward": RewardConfig, "dpo": DPOConfig, "ppo": PPOConfig, "online": OnlineDPOConfig, "sft": SFTConfig}
}
OTHERS: dict[str, Any] = {
    "dataloader_multiprocessing_context": "fork",
    "dataloader_prefetch_factor": 2,
    "eval_accumulation_steps": 1,
    "fsdp": "full_shard",
    "fsdp_config": {"version": 2},
    "include_for_metrics": ["loss"],
    "label_names": ["x"],
    "liger_kernel_config": {"rope": True},
    "length_column_name": "tokens",
    "neftune_noise_alpha": 5.0,
    "optim_target_modules": ["q_proj"],
    "parallelism_config": object(),
    "torch_compile_backend": "eager",
    "torch_compile_mode": "default",
    "train_sampling_strategy": "sequential",
}
"""A value other than the default, where the default doesn't give one."""
WITH = {"dataloader_prefetch_factor": {"dataloader_num_workers": 1}}
"""Options that Trainer asks for beside one."""


def test_every_field_has_one_row() -> None:
    options = {name.partition(".")[0] for name in TABLE}
    assert options == {each.name for each in dataclasses.fields(TrainingArguments)}
    entries = {name.partition(".")[2] for name in TABLE if "." in name}
    unread = {"use_configured_state"}  # of a user's Accelerator, before anything of ours
    assert entries | unread == {each.name for each in dataclasses.fields(AcceleratorConfig)}


def other(column: Column, name: str) -> Any:
    """A value of an option that isn't its default in this column's config."""
    if name in OTHERS:
        return OTHERS[name]
    default = default_of(CONFIGS[column], name)
    return not default if isinstance(default, bool | None) else 0.1 if isinstance(default, float) else default + 1


def given(name: str, value: Any) -> dict[str, Any]:
    option, _, entry = name.partition(".")
    return {**WITH.get(name, {}), option: {entry: value} if entry else value}


def refusals() -> Iterator[Any]:
    """Each refused option of each trainer, and each refused value."""
    for column in COLUMNS:
        for name, row in TABLE.items():
            cell = row.cells[column]
            if cell.verdict == "refused":
                yield pytest.param(column, name, other(column, name), cell.words, id=f"{column}-{name}")
            for value, reason in cell.values.items():
                listed = isinstance(default_of(TrainingArguments, name), list)
                yield pytest.param(column, name, [value] if listed else value, reason, id=f"{column}-{name}-{value}")


@pytest.mark.parametrize(("column", "name", "value", "reason"), list(refusals()))
def test_what_the_table_refuses_is_refused_by_the_config_with_its_reason(
    column: Column, name: str, value: Any, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as raised:
        CONFIGS[column](str(tmp_path), use_cpu=True, report_to="none", **given(name, value))
    named = "torch_compile" if name.startswith("torch_compile") else name  # the others switch it on
    assert str(raised.value).startswith(f"{named} is ") and str(raised.value).endswith(f": {reason}.")
    assert "; " in reason, "a reason says what to do"


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fp16": True, "bf16": False}, "fp16 is True: a CPU computes in bfloat16 or float32; use bf16, or leave it"),
        (
            {"fsdp": "full_shard"},
            "fsdp is True: (Accelerate shards on GPUs, and on a CPU would train|it generates from)",
        ),
        ({"fsdp_config": {"version": 2}}, "fsdp_config is .*: (it is for fsdp, which is off|it generates from whole)"),
        ({"debug": "tpu_metrics_debug"}, "debug is .*: tpu_metrics_debug needs a TPU; leave it out"),
        ({"optim": "lomo"}, "optim is 'lomo': it needs the package lomo-optim, which isn't installed; install it, or"),
        (
            {"optim": "galore_adamw", "optim_target_modules": ["x"]},
            "optim is 'galore_adamw': it needs the package galor",
        ),
        (
            {"optim_args": "amsgrad=True"},
            "optim_args is 'amsgrad=True': adamw_torch_fused takes none of them; leave it",
        ),
        ({"optim": "sgd", "optim_args": "momentum"}, "optim_args is 'momentum': it must be like name=value,name=val"),
        (
            {"optim": "sgd", "optim_args": "momentm=0.9"},
            "optim_args is 'momentm=0.9': sgd has no momentm; it takes mom",
        ),
        ({"optim": "sgd", "optim_args": "momentum=0.9x"}, "optim_args is 'momentum=0.9x': momentum must be a number;"),
        ({"optim": "sgd", "optim_args": "nesterov=y"}, "optim_args is 'nesterov=y': nesterov must be true or false;"),
        ({"optim": "rmsprop", "optim_args": "weight_decay=1"}, "optim_args is .*: the option weight_decay counts inst"),
        ({"optim": "ademamix", "optim_args": "t_alpha=1.5"}, "optim_args is 't_alpha=1.5': t_alpha must be a whole n"),
        ({"optim": "rmsprop_bnb_8bit", "optim_args": "alpha=.9"}, "optim_args is 'alpha=.9': rmsprop_bnb_8bit takes n"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            r"lr_scheduler_type is 'cosine_with_min_lr': .* of lr_scheduler_kwargs \{\} \(One of min_lr or .*\); give",
        ),
        (
            {"lr_scheduler_kwargs": {"cycles": 2}},
            r"lr_scheduler_kwargs is \{'cycles': 2\}: the schedule 'linear' can't .* argument 'cycles'\); give what it",
        ),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "x"}},
            "lr_scheduler_type is 'cosine': the schedule 'cosine' can't be made of",
        ),
        (
            {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"num_cycles": 2}},
            "lr_scheduler_type is 'constant': the schedule 'constant' takes no lr_scheduler_kwargs; leave them out",
        ),
        ({"dataloader_persistent_workers": True}, "dataloader_persistent_workers is True: (no processes load|prompts)"),
        (
            {"dataloader_multiprocessing_context": "fork"},
            "dataloader_multiprocessing_context is 'fork': (no processes load the rows; set|prompts are few)",
        ),
        ({"optim_target_modules": ["q_proj"]}, "optim_target_modules is .*: only GaLore and APOLLO optimizers read it"),
        (
            {"use_liger_kernel": True},
            "use_liger_kernel is True: (its kernels replace layers|liger-kernel isn't install)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_can_only_fail_later_here_is_refused_now(
    column: Column, changes: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        CONFIGS[column](str(tmp_path), use_cpu=True, report_to="none", **changes)


@pytest.mark.parametrize("column", COLUMNS)
def test_defaults_are_never_refused_nor_a_copy_of_a_config(column: Column, tmp_path: Path) -> None:
    args = CONFIGS[column](str(tmp_path), use_cpu=True, report_to="none")
    assert dataclasses.replace(args).to_dict() == args.to_dict()


HERE = "trainers/arguments/test_options.py::"
EVALUATING = "trainers/test_evaluating.py::"
QUIET = f"{HERE}test_options_that_are_about_no_number_change_none_and_a_model_saved_alone_is_not_resumed"
TRIED: dict[str, tuple[str, ...]] = {
    QUIET: (
        *("activation_checkpointing", "activation_checkpointing_kwargs", "debug", "disable_tqdm", "full_determinism"),
        *("torch_empty_cache_steps", "local_rank", "accelerator_config", "restore_callback_states_from_checkpoint"),
        *("do_train", "do_eval", "do_predict", "run_name", "save_strategy", "save_steps", "save_total_limit"),
        *("save_only_model", "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor"),
        *("dataloader_multiprocessing_context", "output_dir", "use_cpu", "max_steps", "per_device_train_batch_size"),
        "remove_unused_columns",
    ),
    f"{HERE}test_memory_metrics_are_measured": ("skip_memory_metrics",),
    f"{HERE}test_optimizer_and_schedule_are_made_of_the_options": (
        *("optim", "optim_args", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
        *("warmup_steps", "lr_scheduler_kwargs"),
    ),
    f"{HERE}test_a_step_is_clipped_to_max_grad_norm": ("max_grad_norm",),
    f"{HERE}test_a_schedule_follows_the_best_metric_in_its_direction": ("lr_scheduler_type", "greater_is_better"),
    f"{HERE}test_the_rate_of_a_policy_by_rollouts_falls_where_the_reward_stays": ("metric_for_best_model",),
    f"{HERE}test_labels_of_demonstrations_are_smoothed": ("label_smoothing_factor",),
    f"{HERE}test_rows_are_drawn_as_the_options_say": (
        "train_sampling_strategy",
        "data_seed",
        "seed",
        "dataloader_drop_last",
    ),
    f"{HERE}test_workers_and_seeds_of_a_curriculum": ("dataloader_in_order",),
    f"{EVALUATING}test_the_ways_to_evaluate_give_the_same_metrics_and_predictions": (
        *("per_device_eval_batch_size", "eval_accumulation_steps", "eval_do_concat_batches", "include_for_metrics"),
        "batch_eval_metrics",
    ),
    f"{EVALUATING}test_only_the_loss_of_demonstrations_where_nothing_else_is_wanted": ("prediction_loss_only",),
    f"{HERE}test_evaluations_logs_and_tokens_come_when_the_options_say": (
        *("eval_on_start", "eval_strategy", "eval_steps", "eval_delay", "logging_steps", "logging_first_step"),
        *("include_num_input_tokens_seen", "num_train_epochs"),
    ),
    f"{HERE}test_tokens_of_updates_are_counted_with_their_padding": ("logging_strategy",),
    f"{HERE}test_what_depends_on_arguments_is_refused_before_anything_is_loaded": ("report_to",),
    f"{HERE}test_a_checkpoint_on_sigterm_resumes_exactly": ("enable_jit_checkpoint",),
    f"{HERE}test_without_skipping_data_a_resumed_run_begins_the_epoch_again": ("ignore_data_skip",),
    "trainers/test_base.py::test_log_level_goes_for_this_package_too": ("log_level",),
    "trainers/test_base.py::test_bf16_on_a_cpu_needs_no_further_argument": ("bf16",),
    "trainers/test_base.py::test_activation_recompute_and_gradient_checkpointing_say_the_same": (
        "gradient_checkpointing",
    ),
    "trainers/test_base.py::test_the_best_checkpoint_is_kept_and_loaded": ("load_best_model_at_end",),
    "trainers/test_resuming.py::test_resuming_a_run_that_is_over_trains_nothing": ("resume_from_checkpoint",),
    "trainers/test_resuming.py::test_metrics_begin_anew_with_each_run_and_each_try": ("auto_find_batch_size",),
    "trainers/test_base.py::test_accumulation_changes_nothing": ("gradient_accumulation_steps",),
    "trainers/test_start_checks.py::test_policy_and_reference_see_the_same_noise": ("neftune_noise_alpha",),
    "trainers/test_nonfinite.py::test_no_trainer_hides_a_loss_that_is_not_finite": ("logging_nan_inf_filter",),
    "trainers/test_checks.py::test_intervals_mappings_and_backends": ("ddp_backend",),
    "trainers/test_checks.py::test_what_is_right_is_left_alone": ("gradient_checkpointing_kwargs",),
    "hub/test_trainer.py::test_each_strategy_pushes_what_it_says": ("push_to_hub", "hub_strategy"),
    "hub/test_trainer.py::test_push_to_hub_saves_and_pushes_with_the_card_s_arguments": (
        *("hub_model_id", "hub_private_repo"),
    ),
    "hub/test_trainer.py::test_a_checkpoint_that_is_deleted_while_it_is_uploaded_arrives_whole": ("hub_always_push",),
}
"""The test that tries each option which works or differs, below `tests/`."""


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_option_that_works_is_tried_or_says_why_not() -> None:
    tried = {name: test for test, names in TRIED.items() for name in names}
    usable = {name for name, row in TABLE.items() if any(cell.verdict != "refused" for cell in row.cells.values())}
    untried = {name for name, row in TABLE.items() if row.untried}
    assert set(tried) == usable - untried
    for test in TRIED:
        file, _, name = test.partition("::")
        assert name in names_in(file), test
