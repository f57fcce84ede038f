"""Rows that are trained and evaluated on are counted, whatever their layout was."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from hf_align import DPOConfig, DPOTrainer
from hf_align.trainers.shared_rows import warn_of_shared_rows
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, text_pairs


def tokens(*rows: tuple[list[int], list[list[int]]]) -> Dataset:
    return Dataset.from_list([{"prompt_ids": prompt, "response_ids": responses} for prompt, responses in rows])


A, SWAPPED = ([1, 2], [[3], [4, 5]]), ([1, 2], [[4, 5], [3]])
OTHERS = [([1, 2], [[3], [4]]), ([1], [[2, 3], [4, 5]]), ([1, 2], [[3, 4], [5]]), ([1, 2], [[3], [4, 5], [6]])]


@pytest.mark.parametrize(
    ("train", "evaluation", "said"),
    [
        (tokens(A, *OTHERS), tokens(SWAPPED), "eval_dataset: all 1 rows are in train_dataset, too"),
        (tokens(*OTHERS), tokens(A), None),
        (tokens(*OTHERS, A).select([1, 4]), tokens(*OTHERS, A).select([2, 4]), "eval_dataset: 1 of its 2 rows are in"),
        (
            tokens(A),
            DatasetDict({"train_part": tokens(A), "test": tokens(A, OTHERS[0])}),
            "eval_dataset['test']: 1 of its 2 rows are in",
        ),
        (
            Dataset.from_list([{"prompt_ids": [1, 2]}, {"prompt_ids": [3]}]),
            Dataset.from_list([{"prompt_ids": [3]}, {"prompt_ids": [1]}]),
            "eval_dataset: 1 of its 2 rows are in",
        ),
        (
            Dataset.from_list([{"prompt": "a", "completion": " b", "id": 1}]),
            Dataset.from_list([{"prompt": "a", "completion": " b", "id": 2}]),
            "eval_dataset: all 1 rows are in",
        ),
        (Dataset.from_list([{"text": "a b"}]), Dataset.from_list([{"text": "a"}]), None),
        (tokens(A), None, None),
        ([A], tokens(A), None),  # of a class of one's own
    ],
)
def test_rows_of_both_are_counted(train: Any, evaluation: Any, said: str | None, caplog: pytest.LogCaptureFixture):
    warn_of_shared_rows(train, evaluation)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == (said is not None) and all(text.startswith(str(said)) for text in told)


def test_a_trainer_tells_of_them(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    args = DPOConfig(**options(tmp_path))
    rows: dict[str, Any] = {"train_dataset": text_pairs(8), "eval_dataset": text_pairs(8).select(range(6, 8))}
    DPOTrainer(tiny_model(), args=args, processing_class=tiny_tokenizer(), **rows)
    assert "eval_dataset: all 2 rows are in train_dataset, too, so its metrics say in part what was" in caplog.text
