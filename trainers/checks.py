"""Checks of options and folders before a model is loaded, which Trainer makes later or never."""

from __future__ import annotations

import base64
import inspect
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import get_int_from_env
from torch import nn
from torch.distributed import is_initialized
from transformers import TrainingArguments
from transformers.integrations.deepspeed import is_deepspeed_available
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from hf_align.errors import UserError
from hf_align.fields import as_written
from hf_align.files import write_problem
from hf_align.models.kinds import check_is_policy
from hf_align.models.wrapper import BranchModel
from hf_align.numbers import is_number

FROM_ZERO = ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "seed", "dataloader_num_workers")
FROM_ONE = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
BELOW_ONE = ("adam_beta1", "adam_beta2")
MAPPINGS = ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs", "lr_scheduler_kwargs")
FILES = ("deepspeed", "fsdp_config", "accelerator_config")
"""Options that take a mapping or a JSON file with one."""
WORLD_SIZES = ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "WORLD_SIZE"]
"""Variables in which launchers give the number of processes, as read by accelerate."""
NO_COMPILE = (
    "compiled layers were not surely faster on a CPU, after a minute and a half of compiling, and weren't measured on "
    "a GPU; leave it out, with torch_compile_backend and torch_compile_mode, which switch it on"
)
"""Why torch.compile is refused (docs/how-to/acceleration.md has the figures)."""
SPEED_METRICS = ("runtime", "samples_per_second", "steps_per_second")
"""Metrics that Trainer adds to every evaluation."""


def check_options(args: Any) -> None:
    """Refuse options from which no optimizer, seed, loop or process group can be created.

    Args:
        args: Any `TrainingArguments`, not yet through its `__post_init__`.

    Raises:
        UserError: Names the option and its valid values.
    """
    for name in (*FROM_ZERO, *FROM_ONE, *BELOW_ONE, "num_train_epochs", "max_steps"):
        if not is_number(getattr(args, name)):
            raise UserError(f"{name} is {getattr(args, name)!r}; give a number.")
    for name in FROM_ZERO:
        if not 0 <= getattr(args, name) < math.inf:
            raise UserError(f"{name} is {getattr(args, name)}; give a number from 0.")
    for name in FROM_ONE:
        if getattr(args, name) < 1:
            raise UserError(f"{name} is {getattr(args, name)}; give a number from 1.")
    for name in BELOW_ONE:
        if not 0 <= getattr(args, name) < 1:
            raise UserError(f"{name} is {getattr(args, name)}; give a number from 0 and below 1.")
    if args.max_steps == 0:  # which Trainer doesn't take for -1
        raise UserError("max_steps is 0, so nothing would be trained; give a number from 1, or leave it out.")
    if args.num_train_epochs <= 0 and args.max_steps <= 0:
        raise UserError(
            f"num_train_epochs is {args.num_train_epochs} and max_steps {args.max_steps}, so nothing would be trained; "
            "give one of them above 0."
        )
    _check_intervals(args)
    _check_best_is_saved(args)
    _check_mappings(args)
    _check_backend(args.ddp_backend)


def check_compile(args: Any) -> None:
    """Refuse torch.compile, before `TrainingArguments` switches it on for all later trainers of the process.

    Raises:
        UserError: One of the three options that do so is set.
    """
    if args.torch_compile or args.torch_compile_backend is not None or args.torch_compile_mode is not None:
        raise UserError(f"torch_compile is True: {NO_COMPILE}.")


def _check_intervals(args: Any) -> None:
    """Refuse intervals of logs, evaluations or checkpoints that no step is a multiple of."""
    for event in ("logging", "eval", "save"):
        name = f"{event}_steps"
        value = getattr(args, name)
        if _strategy(args, event) != "steps" or (value is None and event == "eval"):
            continue
        if not is_number(value) or not (0 < value < 1 or (value >= 1 and float(value).is_integer())):
            shown = f"{value:g}" if is_number(value) else repr(value)  # recipes turn 0 into 0.0
            raise UserError(
                f"{name} is {shown}; give a whole number from 1, or a share of all steps below 1; {event}_strategy "
                "'no' switches it off."
            )


def _check_best_is_saved(args: Any) -> None:
    """Refuse to put back a best model that isn't determined or not saved."""
    if not args.load_best_model_at_end:
        return
    stops = getattr(args, "early_stopping_patience", None) is not None
    option = "early_stopping_patience" if stops else "load_best_model_at_end"
    evaluating, saving = _strategy(args, "eval"), _strategy(args, "save")
    if evaluating == "no":
        raise UserError(f"{option} needs evaluations, and eval_strategy is 'no'; set it to 'steps' or 'epoch'.")
    if saving == "best":
        return
    fix = f"set save_strategy to 'best', which saves each new best model, or to {evaluating!r} as eval_strategy"
    if saving != evaluating:
        raise UserError(f"{option} needs saved models to put back, and save_strategy is {saving!r}; {fix}.")
    every = args.logging_steps if args.eval_steps is None else args.eval_steps
    apart = (args.save_steps < 1) != (every < 1) or round(args.save_steps * 1e6) % round(every * 1e6)
    if evaluating == "steps" and apart:
        raise UserError(
            f"{option} needs evaluations of what is saved, and save_steps, {args.save_steps:g}, is no multiple of "
            f"eval_steps, {every:g}; set save_strategy to 'best', or save_steps to such a multiple."
        )


def _strategy(args: Any, event: str) -> str:
    """`logging_strategy` and so on, whether a string or Trainer's enum."""
    strategy = getattr(args, f"{event}_strategy")
    return as_written(strategy)


def _check_mappings(args: Any) -> None:
    for name in (*MAPPINGS, *FILES):
        value = getattr(args, name)
        if isinstance(value, str) and name in FILES and not value.startswith("{"):
            _check_file(name, value)
        elif isinstance(value, str):
            _check_json(name, value, "the text")
        elif name in MAPPINGS and not isinstance(value, dict | None):
            raise UserError(f"{name} is {value!r}; give a mapping.")
    if args.deepspeed and not is_deepspeed_available():
        raise UserError("deepspeed is not installed; pip install deepspeed, or leave the option out.")


def _check_file(name: str, value: str) -> None:
    """Refuse values that are neither a JSON file nor, for DeepSpeed, JSON in base64."""
    path = Path(value)
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else base64.urlsafe_b64decode(value).decode()
    except (OSError, ValueError):  # unreadable, or neither UTF-8 nor base64
        text = None
    if text is None or not (path.is_file() or text.startswith("{")):
        problem = "can't be read as text" if path.exists() else "doesn't exist"
        raise UserError(f"{name}: {value} {problem}; name a JSON file, or give a mapping.")
    _check_json(name, text, value)


def _check_json(name: str, text: str, where: str) -> None:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{name}: {where} is not valid JSON: {error}; fix it, or give a mapping.") from None
    if not isinstance(values, dict):
        raise UserError(f"{name}: {where} holds a {type(values).__name__}; give a mapping.")


def _check_backend(name: Any) -> None:
    backends = TrainingArguments.__dataclass_fields__["ddp_backend"].metadata["choices"]
    if name not in (None, *backends):
        raise UserError(f"ddp_backend is {name!r}; use {_either(backends)}.")
    launched = get_int_from_env(["LOCAL_RANK"], -1) != -1 or get_int_from_env(WORLD_SIZES, 1) > 1
    if name is not None and not launched and not is_initialized():
        raise UserError(
            f"ddp_backend is {name!r} and this is a single process; start several with `accelerate launch`, or leave "
            "it out."
        )


def check_metrics(args: Any, compute_metrics: Any) -> None:
    """Refuse a `compute_metrics` that can't be called batch by batch where that is asked for.

    Raises:
        UserError: `batch_eval_metrics` is set, and the function takes no `compute_result`.
    """
    if not args.batch_eval_metrics or compute_metrics is None:
        return
    parameters = inspect.signature(compute_metrics).parameters.values()
    if not any(each.name == "compute_result" or each.kind is each.VAR_KEYWORD for each in parameters):
        raise UserError(
            "batch_eval_metrics calls compute_metrics with compute_result, True at the last batch, which yours doesn't "
            "take; add it, or leave batch_eval_metrics out."
        )


def check_reporters(args: Any, place: str = "report_to") -> None:
    """Refuse reporters that don't exist or aren't installed.

    Args:
        args: Any `TrainingArguments`.
        place: The option's place in a recipe, for messages.

    Raises:
        UserError: Names the reporter.
    """
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            names = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UserError(f"{place}: there is no reporter {name}; use {names} or none.")
        if name not in get_available_reporting_integrations():
            raise UserError(f"{place}: {name} is not installed; pip install it, or use none.")


def check_evaluation(args: Any, eval_dataset: Any) -> None:
    """Refuse evaluation during training without data, and a best model that could never be determined.

    Raises:
        UserError: `eval_strategy` or `eval_on_start` is set without an `eval_dataset`, or `save_strategy` is "best"
            without evaluations or without `metric_for_best_model`.
    """
    strategy = _strategy(args, "eval")
    without = eval_dataset is None and not getattr(args, "evaluates_left_out_rows", False)
    if strategy != "no" and without:
        raise UserError(f"eval_strategy is {strategy!r} and there is no eval_dataset; give one, or set it to 'no'.")
    if args.eval_on_start and without:
        raise UserError("eval_on_start is True and there is no eval_dataset; give one, or leave it out.")
    if _strategy(args, "save") != "best":
        return
    if args.metric_for_best_model is None:
        raise UserError(
            "save_strategy is 'best' and metric_for_best_model is missing; name a metric of the evaluation, or save by "
            "'steps' or 'epoch'."
        )
    if strategy == "no":
        raise UserError(
            "save_strategy is 'best' and eval_strategy 'no', so nothing would ever be saved; set eval_strategy to "
            "'steps' or 'epoch'."
        )


def check_best_metric(args: Any, eval_dataset: Any, metrics: Sequence[str]) -> None:
    """Refuse a `metric_for_best_model` that evaluations don't return.

    Args:
        args: Any `TrainingArguments`.
        eval_dataset: A data set, or a dict of them, whose keys prefix the metrics' names.
        metrics: Metrics of an evaluation, without `eval_`, besides `SPEED_METRICS`.

    Raises:
        UserError: Lists the available metrics.
    """
    name = args.metric_for_best_model
    if name is None or _strategy(args, "eval") == "no":
        return
    names = evaluated_metrics(eval_dataset, metrics)
    if name.removeprefix("eval_") not in names:
        raise UserError(
            f"metric_for_best_model is {name!r}, which evaluations here don't return; use {_either(names)}."
        )


def evaluated_metrics(eval_dataset: Any, metrics: Sequence[str]) -> list[str]:
    """Names of what evaluations return, without `eval_`; arguments as of `check_best_metric`."""
    sets = [f"{key}_" for key in eval_dataset] if isinstance(eval_dataset, dict) else [""]
    return [f"{prefix}{metric}" for prefix in sets for metric in (*metrics, *SPEED_METRICS)]


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def check_config_class(args: Any, config_class: type) -> None:
    """Refuse another trainer's config, plain `TrainingArguments` or a dict.

    Raises:
        UserError: Names the class to use.
    """
    if not isinstance(args, config_class):
        raise UserError(f"args is a {type(args).__name__}; give a {config_class.__name__}.")


def check_policies(model: Any, ref_model: Any) -> None:
    """Refuse models that aren't policies, and a reference that training would change.

    Raises:
        UserError: One of them is a reward model or a trainer's wrapper, or they share weights that are trained.
    """
    for name, given in (("model", model), ("ref_model", ref_model)):
        check_is_policy(given, name)
        if isinstance(given, BranchModel):
            raise UserError(
                f"{name} is a {type(given).__name__}, a trainer's wrapper; give the model in it, trainer.model.model."
            )
    if not isinstance(ref_model, nn.Module):  # a name is loaded twice
        return
    if ref_model is model:
        raise UserError(
            "ref_model is the model itself, which training changes; leave it out to use the policy as given."
        )
    held = {id(weight) for weight in ref_model.parameters()}
    if isinstance(model, nn.Module) and any(p.requires_grad and id(p) in held for p in model.parameters()):
        raise UserError(
            "ref_model shares weights with the model, which trains them (peft puts adapters into the base it gets); "
            "leave it out to use the policy as given, or load the reference by itself."
        )


def check_place(directory: Path, place: str) -> None:
    """Refuse a folder that can't be written to, without creating it.

    Args:
        directory: The folder; it need not exist yet.
        place: The option or function that named it, for the message.

    Raises:
        UserError: It or a parent is a file, or there is no write permission.
    """
    whole = directory.absolute()
    existing = next(path for path in (whole, *whole.parents) if os.path.exists(path))
    if not existing.is_dir():
        raise UserError(f"{place}: can't write to {directory}: {existing.name} is a file; name another folder.")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{place}: can't write to {directory}; name another folder.")
    if not os.path.exists(whole) and (problem := write_problem(whole)):
        raise UserError(f"{place}: can't write to {directory}: {problem}; name another folder.")


def check_output_dir(args: Any) -> None:
    """Refuse an `output_dir` that can't be written to, before anything is loaded.

    Raises:
        UserError: It is a file, or a folder without write permission.
    """
    directory = Path(args.output_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(f"output_dir: can't write to {directory}: {error.strerror}; name another folder.") from error
