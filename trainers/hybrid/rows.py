"""Rows of all stages, read and tokenised before anything is loaded, as their trainers will read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_align.algorithms import Rows
from hf_align.data.sft.demonstrations import trained_demonstrations
from hf_align.trainers.data import parts_of
from hf_align.trainers.hybrid.messages import in_stage
from hf_align.trainers.hybrid.plan import Planned
from hf_align.trainers.pairs import tokenized_pairs
from hf_align.trainers.rollouts.data import prompts_of


def check_rows(stages: Sequence[Planned], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse rows that a stage's trainer would refuse, hours later.

    Args:
        stages: The run's stages.
        tokenizer: The policy's.

    Raises:
        UserError: Names the stage, the data set and the row.
    """
    for stage in stages:
        with in_stage(stage.label):
            check_rows_of(stage.algorithm.rows, stage.rows, tokenizer, stage.args, stage.scoring.get("reward"))


def check_rows_of(
    kind: Rows, datasets: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, args: Any, reward: Any = None
) -> None:
    """Refuse rows that a policy's trainer would refuse; of unknown kinds nothing is checked.

    Args:
        kind: Kind of rows.
        datasets: Data sets by the names that messages give them.
        tokenizer: The policy's.
        args: The trainer's config.
        reward: The reward, which may ask for columns.

    Raises:
        UserError: Names the data set and the row.
    """
    for name, data in datasets.items():
        if kind == "pairs":
            tokenized_pairs(data, tokenizer, args, name)
        elif kind == "prompts":
            prompts_of(data, reward, tokenizer, args, name)
        elif kind == "demonstrations":
            for part in parts_of([data]):
                trained_demonstrations(part, name, whole=args.assistant_only_loss)
