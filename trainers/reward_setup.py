"""Before a reward model is trained: its head and tasks, and whether loss, options and rows go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_align.collators.checks import as_preferences, group_rows, refuse
from hf_align.collators.labels import Tasks
from hf_align.data.layouts.recognition import trained_rows
from hf_align.errors import UserError
from hf_align.losses.listwise import MAX_TIED
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.reward_files import Settings
from hf_align.models.sources import adapter_config, plain_folder
from hf_align.numbers import number_problem
from hf_align.trainers.curriculum import check_rows, read_curriculum
from hf_align.trainers.data import parts_of
from hf_align.trainers.difficulty import COLUMN, difficulties
from hf_align.trainers.pairs import tokenized_pairs

MARGIN_MEANING = {
    "weight": "it multiplies the loss, -m * logsigmoid(r_chosen - r_rejected)",
    "scale": "it multiplies the difference, -logsigmoid(m * (r_chosen - r_rejected))",
    "shift": "it is subtracted from the difference, -logsigmoid(r_chosen - r_rejected - m)",
    "none": "it has no effect",
}

NO_VOTES = "no votes to draw from (label_mode='draw')"
SOFT_LABEL = "a soft label, which loss_type='plackett_luce' can't learn"
TOO_MANY_TIED = f"more than {MAX_TIED} tied responses, over whose orders loss_type='plackett_luce' can't average"


def requested_config(args: Any) -> RewardModelConfig:
    """The head, pooling and tasks that a `RewardConfig` asks for in a new reward model."""
    return RewardModelConfig(
        args.pooling, args.head, args.tasks or {}, projection=args.contrastive_coefficient is not None
    )


def config_of(model: Any, args: Any) -> RewardModelConfig:
    """What the model that is about to be trained predicts.

    Args:
        model: As given to the trainer.
        args: Its `RewardConfig`.

    Raises:
        UserError: The model has its own head, and `args` ask for another one.
    """
    requested = requested_config(args)
    if isinstance(model, str):
        saved = Settings.read(plain_folder(model))
        if saved is None and (requested.is_plain or adapter_config(plain_folder(model)) is None):
            return requested
        given = RewardModelConfig() if saved is None else saved.config
    else:
        given = model.reward_config if isinstance(model, RewardModel) else RewardModelConfig()
    for name in ("pooling", "head", "tasks"):
        wanted = getattr(requested, name)
        if wanted not in (getattr(given, name), getattr(RewardModelConfig(), name)):
            raise UserError(
                f"{name} is {wanted!r}, and the model already has {name} {getattr(given, name)!r}; leave {name} out, "
                "or start from a language model, which gets a new head."
            )
    if requested.projection and not given.projection:
        raise UserError(
            "contrastive_coefficient needs a model with a projection: make it with RewardModelConfig(projection=True), "
            "or start from a language model."
        )
    return given


def load(model: str, config: RewardModelConfig, quantization: Quantization) -> RewardModel:
    """Load a reward model by name, with a new head if it has none like `config`."""
    if config.is_plain or Settings.read(plain_folder(model)) is not None:
        return load_reward_model(model, quantization=quantization)
    return RewardModel.from_backbone(model, config, quantization=quantization)


def check_task_options(args: Any, tasks: Tasks) -> None:
    """Refuse weights and contrastive labels of tasks that the model doesn't have.

    Raises:
        UserError: Names the option.
    """
    for name in args.task_weights or {}:
        if name not in tasks:
            raise UserError(f"task_weights: the model has no task {name}; {_options(name, tasks)}")
    classes = [name for name, kind in tasks.items() if kind != "regression"]
    if args.contrastive_labels not in (None, "prompt", *classes):
        raise UserError(
            f"contrastive_labels is {args.contrastive_labels!r}; it must be 'prompt' or a task of the model with "
            f"classes{' (' + ', '.join(classes) + ')' if classes else ', and it has none'}."
        )


def _options(name: str, tasks: Tasks) -> str:
    if close := get_close_matches(name, tasks, 1):
        return f"did you mean {close[0]}?"
    return f"it has {', '.join(tasks)}." if tasks else "give its kind in tasks, as in {'safe': 'binary'}."


def check_weights(weights: Mapping[str, Any] | None) -> None:
    """Refuse task weights that aren't numbers from 0.

    Raises:
        UserError: Names the task.
    """
    for name, weight in (weights or {}).items():
        if number_problem(weight) or weight < 0:
            raise UserError(f"task_weights: the weight of {name} is {weight!r}; give a number from 0.")


def check_options(args: Any) -> None:
    """Refuse options of a `RewardConfig` that mean nothing together.

    Raises:
        UserError: Names them.
    """
    check_weights(args.task_weights)
    if args.loss_type == "plackett_luce" and args.label_smoothing:
        raise UserError(
            "label_smoothing flips labels of pairs, and loss_type='plackett_luce' has none; leave it out, or use "
            "'bradley_terry', which takes all pairs of a ranking."
        )
    if args.contrastive_labels is not None and args.contrastive_coefficient is None:
        raise UserError("contrastive_labels has no effect without contrastive_coefficient; give it, such as 0.1.")


def weights_of(args: Any, tasks: Tasks) -> dict[str, float]:
    """Weight in the loss of each of the model's tasks."""
    return dict.fromkeys(tasks, 1.0) | (args.task_weights or {})


def prepare_comparisons(data: Any, tokenizer: PreTrainedTokenizerBase, args: Any, name: str, tasks: Tasks) -> Any:
    """Check and tokenise pairs or rankings, or a dict of such data sets; None stays None.

    Training rows get a column `difficulty` where there is a curriculum.

    Args:
        data: The rows.
        tokenizer: The model's.
        args: A `RewardConfig`.
        name: The argument's name, for messages.
        tasks: The model's auxiliary tasks.

    Raises:
        UserError: A row can't be used, or loss, votes or tasks can't be taken from the rows: names the column or rows.
    """
    curriculum = None
    if name == "train_dataset" and data is not None and args.curriculum is not None:
        curriculum = read_curriculum(args.curriculum, batch=args.per_device_train_batch_size)
        data = trained_rows(data, name)
        check_rows(curriculum, len(as_preferences(data, name)))
    rows = tokenized_pairs(data, tokenizer, args, name, tasks)
    for part in parts_of([rows]):
        _check_rows(part, args, weights_of(args, tasks), name)
    if name != "train_dataset":
        _check_tau(rows, args)
    elif curriculum is not None:
        values = difficulties(curriculum.difficulty, as_preferences(data, name), rows, tokenizer, name)
        return rows.add_column(COLUMN, values)
    return rows


def _check_tau(rows: Any, args: Any) -> None:
    """Refuse to choose the best model by the tau of pairs."""
    for key, part in rows.items() if isinstance(rows, dict) else [("", rows)]:
        wanted = (args.metric_for_best_model or "").removeprefix("eval_")
        if part is not None and wanted == (f"{key}_tau" if key else "tau") and "ranks" not in part.column_names:
            raise UserError(
                f"metric_for_best_model is {wanted!r}, and the evaluation's rows are pairs, whose tau would be "
                f"2 * accuracy - 1; use {wanted.removesuffix('tau')}accuracy."
            )


def _check_rows(rows: Dataset, args: Any, tasks: Mapping[str, float], name: str) -> None:
    columns = rows.column_names
    training = name == "train_dataset"
    if training and args.label_mode == "draw" and not {"votes", "ratings"} & set(columns):
        raise UserError(
            f"label_mode is 'draw', and {name} has neither votes (of pairs) nor ratings (of responses) to draw from; "
            "give them, or leave label_mode out."
        )
    elif training and args.label_mode == "draw" and "votes" in columns:
        without = [NO_VOTES if votes is None else "" for votes in rows["votes"]]
        refuse(group_rows(without), name, "give them, drop the rows, or leave label_mode out")
    if missing := [task for task, weight in tasks.items() if training and weight and task not in columns]:
        raise UserError(
            f"{name} has no column {missing[0]} (or chosen_{missing[0]} and rejected_{missing[0]}) with labels of that "
            f"task; add it, or set task_weights: {{{missing[0]}: 0}}."
        )
    if args.loss_type == "plackett_luce":
        _check_plackett_luce(rows, args, name, draws=training and args.label_mode == "draw")


def _check_plackett_luce(rows: Dataset, args: Any, name: str, *, draws: bool) -> None:
    columns = rows.column_names
    if "margin" in columns and args.margin_mode != "none":
        raise UserError(
            f"{name} has a column margin, and loss_type='plackett_luce' uses none; set margin_mode='none', or use "
            "'bradley_terry'."
        )
    read = rows.select_columns([column for column in ("label", "ranks") if column in columns])
    refuse(
        group_rows(_order_problem(dict(row), draws=draws) for row in read), name, "use 'bradley_terry', or drop them"
    )


def loss_problem(row: Mapping[str, Any], args: Any) -> str:
    """Say why the loss can't be taken from a tokenised training row, worded to follow "1 row has"; "" if it can."""
    draws = args.label_mode == "draw"
    if draws and "votes" in row and row["votes"] is None:
        return NO_VOTES
    return _order_problem(row, draws=draws) if args.loss_type == "plackett_luce" else ""


def _order_problem(row: Mapping[str, Any], *, draws: bool) -> str:
    """Why Plackett-Luce can't learn from a row, or ""."""
    if "label" in row and not draws:
        return "" if row["label"] in (0, 0.5, 1) else SOFT_LABEL
    # Any of the drawn ratings may be equal.
    tied = (len if draws else _most_tied)(row["ranks"]) if "ranks" in row else 0
    return TOO_MANY_TIED if tied > MAX_TIED else ""


def _most_tied(ranks: Sequence[int]) -> int:
    return max(Counter(rank for rank in ranks if rank >= 0).values())


def describe_use(rows: Dataset, args: Any) -> list[str]:
    """Sentences on how margins, votes and tied ranks of the training rows are used, for the log."""
    columns, sentences = rows.column_names, []
    scored = "scores" in columns and "ratings" not in columns
    if ("margin" in columns or scored) and args.loss_type != "plackett_luce":
        of = "scores, and the difference of two is their margin m" if scored else "a margin m"
        hinge = args.loss_type == "hinge" and args.margin_mode != "none"
        meaning = "it is the lead that the better response must have" if hinge else MARGIN_MEANING[args.margin_mode]
        mode = "loss_type='hinge'" if hinge else f"margin_mode='{args.margin_mode}'"
        sentences.append(f"The rows have {of}: with {mode} {meaning}.")
    if {"votes", "ratings"} & set(columns):
        draw = "one is drawn for each row and epoch" if args.label_mode == "draw" else "labels are their shares"
        only_order = args.loss_type == "plackett_luce" and args.label_mode == "share"
        use = "only the order of the mean ratings is used" if only_order else draw
        sentences.append(f"The rows have single votes: with label_mode='{args.label_mode}' {use}.")
    return sentences
