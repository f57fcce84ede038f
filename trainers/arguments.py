"""Options of Trainer's own that it would only stumble over once the model is loaded, or never."""

from __future__ import annotations

import math
from typing import Any

from hf_align.errors import UserError

FROM_ZERO = ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "seed", "dataloader_num_workers")
BELOW_ONE = ("adam_beta1", "adam_beta2")


def check_numbers(args: Any) -> None:
    """Refuse numbers with which no optimizer, seed or loop can be made.

    Args:
        args: Any `TrainingArguments`.

    Raises:
        UserError: It names the option and what it may be.
    """
    for name in (*FROM_ZERO, *BELOW_ONE, "num_train_epochs", "max_steps"):
        value = getattr(args, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise UserError(f"{name} is {value!r}; give a number.")
    for name in FROM_ZERO:
        if not 0 <= getattr(args, name) < math.inf:
            raise UserError(f"{name} is {getattr(args, name)}; give a number from 0.")
    for name in BELOW_ONE:
        if not 0 <= getattr(args, name) < 1:
            raise UserError(f"{name} is {getattr(args, name)}; give a number from 0 and below 1.")
    if args.num_train_epochs <= 0 and args.max_steps <= 0:
        raise UserError(
            f"num_train_epochs is {args.num_train_epochs} and max_steps {args.max_steps}, so nothing would be trained; "
            "give one of them above 0."
        )


def check_evaluation(args: Any, eval_dataset: Any) -> None:
    """Refuse to evaluate during training without anything to evaluate on.

    Raises:
        UserError: `eval_strategy` asks for evaluations, and there is no `eval_dataset`.
    """
    strategy = getattr(args.eval_strategy, "value", args.eval_strategy)
    if strategy != "no" and eval_dataset is None:
        raise UserError(f"eval_strategy is {strategy!r} and there is no eval_dataset; give one, or set it to 'no'.")


def check_config_class(args: Any, config_class: type) -> None:
    """Refuse another trainer's config, plain `TrainingArguments` or a dict.

    Raises:
        UserError: It names the class to use.
    """
    if not isinstance(args, config_class):
        raise UserError(f"args is a {type(args).__name__}; give a {config_class.__name__}.")
