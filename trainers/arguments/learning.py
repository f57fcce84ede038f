"""Rows of the table: the optimizer, its schedule, batches and the length of a run."""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from transformers.optimization import get_scheduler

from hf_align.fields import as_written
from hf_align.trainers.arguments.cells import differs, refused, row, works

MODULES_OF = ("galore", "apollo")
"""Kinds of optimizers that read `optim_target_modules`."""
BY_EVALUATIONS = ("reduce_lr_on_plateau", "greedy")
"""Schedules that follow a metric of evaluations."""


PACKAGES = (
    *(("galore", "galore_torch"), ("apollo", "apollo_torch"), ("lomo", "lomo_optim"), ("grokadamw", "grokadamw")),
    *(("schedule_free", "schedulefree"), ("stable_adamw", "optimi"), ("anyprecision", "torchdistx")),
    *(("adamw_torch_4bit", "torchao"), ("adamw_torch_8bit", "torchao"), ("8bit", "bitsandbytes")),
    *(("bnb", "bitsandbytes"), ("paged", "bitsandbytes"), ("lion", "bitsandbytes"), ("ademamix", "bitsandbytes")),
)
"""Parts of optimizers' names with the module that they need; the first that fits counts."""


def without_package(args: Any) -> str | None:
    """Refuse an optimizer whose package isn't installed; Trainer would do so once the model is loaded."""
    name = str(as_written(args.optim))
    module = next((module for part, module in PACKAGES if part in name), None)
    if module is None or find_spec(module) is not None:
        return None
    return f"it needs the package {module.replace('_', '-')}, which isn't installed; install it, or use another"


WITHOUT_ARGUMENTS = re.compile(
    r"adamw_torch(_fused)?|adafactor|rmsprop_bnb\w*|(paged_)?(adamw|lion)(_bnb)?_(8|32)bit|(ada)?lomo"
)
"""Optimizers for which Trainer doesn't read `optim_args`."""


NUMBERS = {
    "sgd": ("momentum", "dampening"),
    "adagrad": ("lr_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps"),
    "ademamix": ("beta1", "beta2", "beta3", "alpha", "t_alpha", "t_beta3", "eps"),
}
TRUTHS = {"sgd": ("nesterov",), "rmsprop": ("centered",)}
"""What Trainer reads of `optim_args`, by optimizer; it passes over any other name without a word."""


def without_arguments(args: Any) -> str | None:
    """Refuse arguments that the optimizer doesn't take, or that aren't like `name=value,name=value`."""
    name, given = str(as_written(args.optim)), args.optim_args.replace(" ", "")
    if WITHOUT_ARGUMENTS.fullmatch(name):
        return f"{name} takes none of them; leave it out (betas and epsilon have options of their own)"
    if not re.fullmatch(r"\w+=[^=,]+(,\w+=[^=,]+)*", given):
        return "it must be like name=value,name=value; write it so"
    kind = "ademamix" if "ademamix" in name else name
    numbers, truths = NUMBERS.get(kind), TRUTHS.get(kind, ())
    for option, value in (each.split("=") for each in given.split(",")):
        if numbers is None:  # of an optimizer that isn't tried
            continue
        if option == "weight_decay":
            return "the option weight_decay counts instead; give that"
        if option not in (*numbers, *truths):
            return f"{name} has no {option}; it takes {', '.join((*numbers, *truths))}"
        if option in truths and value.lower() not in ("true", "false"):
            return f"{option} must be true or false; write it so"
        whole = option.startswith("t_")
        form = r"\d+" if whole else r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
        if option in numbers and not re.fullmatch(form, value.lower()):
            return f"{option} must be a {'whole ' if whole else ''}number; write it so"
    return None


def without_target_modules(args: Any) -> str | None:
    """Refuse modules for an optimizer that treats all alike."""
    name = str(as_written(args.optim))
    if any(kind in name for kind in MODULES_OF):
        return None
    return f"only GaLore and APOLLO optimizers read it, and optim is {name!r}; leave it out"


def without_schedule(args: Any) -> str | None:
    """Refuse a schedule that can't be made of `lr_scheduler_kwargs`; Trainer would fail once the model is loaded."""
    kind, kwargs = str(as_written(args.lr_scheduler_type)), args.lr_scheduler_kwargs or {}
    if kwargs and kind in ("constant", "constant_with_warmup"):
        return f"the schedule {kind!r} takes no lr_scheduler_kwargs; leave them out"
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate)
    try:
        with warnings.catch_warnings(action="ignore"):
            schedule: Any = get_scheduler(kind, optimizer, 1, 10**6, dict(kwargs))
        for step in (0, 10**5, 10**6) if kind not in BY_EVALUATIONS else ():
            schedule.lr_lambdas[0](step)
    except (TypeError, ValueError, ArithmeticError) as error:
        said = str(error).rpartition("() ")[2].rstrip(".")
        return (
            f"the schedule {kind!r} can't be made of lr_scheduler_kwargs {dict(kwargs)!r} ({said}); give what it takes"
        )
    return None


def follow_metric(args: Any) -> None:
    """Let a schedule that follows `metric_for_best_model` do so in its direction: PyTorch's default is "min".

    Args:
        args: A config, through the `__post_init__` of `TrainingArguments`; a `mode` in `lr_scheduler_kwargs` stays.
    """
    if as_written(args.lr_scheduler_type) in BY_EVALUATIONS:
        mode = "max" if args.greater_is_better else "min"
        args.lr_scheduler_kwargs = {"mode": mode, **(args.lr_scheduler_kwargs or {})}


SMOOTHS_TOKENS = "it smooths the labels of tokens, and there are none here"

LEARNING = (
    row("learning_rate"),
    row(
        "lr_scheduler_type",
        works(
            f"{' and '.join(map(repr, BY_EVALUATIONS))} follow `metric_for_best_model` in the direction of "
            "`greater_is_better`; `Trainer` lowers the rate of a metric that grows, too.",
            unless=without_schedule,
        ),
    ),
    row("lr_scheduler_kwargs", works("An entry `mode` says otherwise.", unless=without_schedule)),
    row("warmup_steps"),
    row(
        "optim",
        works(
            "Tried are those of torch and bitsandbytes; others (GaLore, LOMO, torchao) aren't.", unless=without_package
        ),
    ),
    row("optim_args", works(unless=without_arguments)),
    row(
        "optim_target_modules",
        branches=differs(
            "A regular expression matches names in the wrapper, `model.` first.", unless=without_target_modules
        ),
        sft=works(unless=without_target_modules),
        untried="galore-torch or apollo-torch",
    ),
    row("weight_decay"),
    row("adam_beta1"),
    row("adam_beta2"),
    row("adam_epsilon"),
    row("max_grad_norm"),
    row(
        "label_smoothing_factor",
        pairs=refused(f"{SMOOTHS_TOKENS}; use label_smoothing, which smooths preferences"),
        online=refused(f"{SMOOTHS_TOKENS}; use label_smoothing, which smooths preferences"),
        ppo=refused(f"{SMOOTHS_TOKENS}; leave it out"),
    ),
    row(
        "neftune_noise_alpha",
        dpo=works("The reference gets the policy's noise. Not with `precompute_ref_log_probs`."),
        rollouts=refused(
            "the loss compares the policy with that of its rollout, and would mistake the noise for a change; leave it "
            "out"
        ),
    ),
    row(
        "per_device_train_batch_size",
        pairs=differs("Counts prompts, each with all its responses."),
        rollouts=differs("Counts responses; see `rollout_batch_size`."),
    ),
    row(
        "gradient_accumulation_steps",
        pairs=works("The loss is the mean over all rows of a step, on all processes."),
        rollouts=works("Part of `rollout_batch_size`."),
    ),
    row(
        "average_tokens_across_devices",
        branches=refused("losses are always means over the rows of all processes; leave it out"),
        untried="several processes",
    ),
    row(
        "auto_find_batch_size",
        rollouts=refused("another batch wouldn't fit rollout_batch_size; set per_device_train_batch_size"),
    ),
    row(
        "num_train_epochs",
        reward=works("A `curriculum` has its own."),
        rollouts=differs("Passes over the prompts; the responses are new in each."),
    ),
    row(
        "max_steps",
        reward=works("Not with a `curriculum`."),
        rollouts=differs("A step is the update by one mini-batch; a rollout takes several."),
    ),
    row("seed"),
    row(
        "data_seed",
        pairs=works("Of the order of rows; a stream has its own."),
        rollouts=differs("Of the order of prompts; samples and mini-batches follow `seed`."),
    ),
    row("full_determinism"),
)
