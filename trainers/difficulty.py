"""How hard the rows of a curriculum are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_align.collators.checks import group_rows, refuse
from hf_align.errors import UserError
from hf_align.numbers import number_problem

COLUMN = "difficulty"
"""Column of tokenised rows."""


def difficulties(
    difficulty: Any, data: Dataset, rows: Dataset, tokenizer: PreTrainedTokenizerBase, name: str
) -> list[float]:
    """How hard each row is, higher for harder.

    Args:
        difficulty: As in `Curriculum`.
        data: The rows as they were given.
        rows: The same, tokenised.
        tokenizer: That they were tokenised with.
        name: The data set's argument, for messages.

    Raises:
        UserError: The column is missing, a row's difficulty is no number, or the function fails on a row.
    """
    values: Sequence[Any]
    if hasattr(difficulty, "score_ids"):
        values = _lacking(difficulty, rows, tokenizer)
    elif callable(difficulty):
        values = [_called(difficulty, dict(row), number, name) for number, row in enumerate(data.with_format(None))]
    elif difficulty == "length":
        values = [
            len(prompt) + sum(map(len, responses))
            for prompt, responses in zip(rows["prompt_ids"], rows["response_ids"], strict=True)
        ]
    elif difficulty in data.column_names:
        values = data.with_format(None)[difficulty][:]
    else:
        raise UserError(
            f"curriculum: {name} has no column {difficulty} to tell the difficulty; name another, or use 'length', a "
            "function or a reward model."
        )
    problems = [f"a difficulty that is {problem}" if (problem := number_problem(value)) else "" for value in values]
    refuse(group_rows(problems), name, "fix or drop them, or take another difficulty for the curriculum")
    sign = -1.0 if difficulty == "margin" else 1.0
    return [sign * float(value) for value in values]


def _called(function: Callable[[dict[str, Any]], Any], row: dict[str, Any], number: int, name: str) -> Any:
    try:
        return function(row)
    except Exception as error:  # any error of the user's function
        raise UserError(
            f"curriculum: the function that tells the difficulty fails on row {number} of {name} with "
            f"{type(error).__name__}: {error}; it gets a dict of the row's columns and returns a number."
        ) from error


def easiest_first(values: Sequence[float]) -> np.ndarray:
    """Numbers of rows by difficulty; equally hard ones in their order."""
    return np.argsort(np.asarray(values, float), kind="stable")


def _lacking(model: Any, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """Score of the worse response minus that of the better one, in the mean over a row's pairs."""
    if model.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            "curriculum: the reward model that tells the difficulty has other tokens than the model to train; score "
            "the rows with `hf-align score` and name a column."
        )
    responses = rows["response_ids"][:]
    prompts = [prompt for prompt, each in zip(rows["prompt_ids"], responses, strict=True) for _ in each]
    scores = iter(model.score_ids(prompts, [ids for each in responses for ids in each]))
    result = []
    for number, each in enumerate(responses):
        own = [next(scores) for _ in each]
        if "ranks" in rows.column_names:
            ranks = [rank if rank >= 0 else len(each) for rank in rows[number]["ranks"]]
        else:
            ranks = [0, 1] if "label" not in rows.column_names or rows[number]["label"] >= 0.5 else [1, 0]
        gaps = [
            own[b] - own[a] if ranks[a] < ranks[b] else own[a] - own[b]
            for a, b in combinations(range(len(each)), 2)
            if ranks[a] != ranks[b]
        ]
        result.append(fmean(gaps) if gaps else 0.0)
    return result
