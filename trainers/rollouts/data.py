"""Preparation of a run's prompts and rewards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from hf_align.collators import tokenize_prompts
from hf_align.collators.checks import refuse_own_columns
from hf_align.data.layouts.recognition import prompt_rows
from hf_align.errors import UserError
from hf_align.models.decoders import positions_of
from hf_align.models.wrapper import BranchModel
from hf_align.rewards import Reward, as_reward
from hf_align.rewards.models import move
from hf_align.rewards.reward import check_functions
from hf_align.trainers.data import parts_of
from hf_align.trainers.rollouts.config import RolloutConfig

Row = dict[str, Any]
"""A row of the data set: `prompt`, `prompt_ids` and the columns that the reward asks for."""
OWN_COLUMNS = ("prompt", "prompt_ids")
"""Columns that reward functions get as texts and as token ids."""


def prompts_of(data: Any, reward: Any, tokenizer: PreTrainedTokenizerBase, args: RolloutConfig, name: str) -> Any:
    """A checked data set, or a dict of them, with `prompt_ids` and the columns that the reward asks for."""
    if data is None:
        return None
    if isinstance(data, dict) and name != "train_dataset":
        return {key: prompts_of(part, reward, tokenizer, args, f"{name}[{key!r}]") for key, part in data.items()}
    data = prompt_rows(data, name)
    tokenized = tokenize_prompts(cast(Any, data), tokenizer, max_prompt_length=args.max_prompt_length, name=name)
    check_functions(reward, [column for column in tokenized.column_names if column not in OWN_COLUMNS])
    return tokenized


def evaluation_rows(data: Any, reward: Any, tokenizer: PreTrainedTokenizerBase, args: RolloutConfig) -> Any:
    """Rows for `evaluate`, as they were given or as a trainer has made them ready."""
    given = data["prompt_ids"][:] if "prompt_ids" in getattr(data, "column_names", ()) else None
    raw = data if given is None else data.remove_columns("prompt_ids")
    rows = prompts_of(raw, reward, tokenizer, args, "eval_dataset")
    if given is not None and given != rows["prompt_ids"][:]:
        refuse_own_columns(["prompt_ids"], ("prompt_ids",), "eval_dataset")
    return rows


def check_room(policy: Any, args: RolloutConfig, *datasets: Any) -> None:
    """Refuse prompts that leave no room for a response among the model's positions."""
    room = positions_of(policy.config)
    longest = max(len(ids) for part in parts_of(datasets) for ids in part["prompt_ids"])
    if room is not None and args.max_new_tokens >= room:
        raise UserError(
            f"max_new_tokens is {args.max_new_tokens} and the model has {room} positions, for a prompt with its "
            f"response; lower it to below {room}."
        )
    if room is not None and longest + args.max_new_tokens > room:
        raise UserError(
            f"The longest prompt has {longest} tokens; with max_new_tokens={args.max_new_tokens} that is more than the "
            f"{room} positions of the model. Set max_prompt_length to at most {room - args.max_new_tokens}."
        )


def ready_scores(
    reward: Any,
    policy: BranchModel,
    tokenizer: PreTrainedTokenizerBase,
    args: RolloutConfig,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Reward:
    """A reward, or a judge, with its models on the training device."""
    ready = as_reward(reward, policy=policy, tokenizer=tokenizer, autocast=autocast)
    for part in ready.members:
        move(part.source, args.device)
    return ready
