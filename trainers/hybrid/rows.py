"""Rows of all stages, read and tokenised before anything is loaded, as their trainers will read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_align.algorithms import Rows
from hf_align.collators.demonstrations import read_demonstrations
from hf_align.trainers.data import parts_of
from hf_align.trainers.hybrid.plan import Planned, in_stage
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
            read = _READERS.get(stage.algorithm.rows)
            if read is None:
                continue
            for name, data in stage.rows.items():
                read(data, tokenizer, stage, name)


def _pairs(data: Any, tokenizer: PreTrainedTokenizerBase, stage: Planned, name: str) -> None:
    tokenized_pairs(data, tokenizer, stage.args, name)


def _prompts(data: Any, tokenizer: PreTrainedTokenizerBase, stage: Planned, name: str) -> None:
    prompts_of(data, stage.scoring.get("reward"), tokenizer, stage.args, name)


def _demonstrations(data: Any, tokenizer: PreTrainedTokenizerBase, stage: Planned, name: str) -> None:
    for part in parts_of([data]):
        read_demonstrations(part, name, whole=stage.args.assistant_only_loss)


_READERS: dict[Rows, Callable[[Any, PreTrainedTokenizerBase, Planned, str], None]] = {
    "pairs": _pairs,
    "prompts": _prompts,
    "demonstrations": _demonstrations,
}
