"""How hard rows are, worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from hf_align.errors import UserError
from hf_align.trainers.difficulty import difficulties, easiest_first
from tests.tiny import tiny_tokenizer

DATA = Dataset.from_dict({"margin": [2.0, 0.5], "level": [1, 7], "empty": [1.0, None]})
ROWS = Dataset.from_dict({"prompt_ids": [[1], [1, 2]], "response_ids": [[[1], [2, 3]], [[4], [5], [6, 7, 8]]]})
TOKENIZER = tiny_tokenizer()


class Lengths:
    """A reward model that likes short responses."""

    tokenizer = TOKENIZER

    def score_ids(self, prompts: list[list[int]], responses: list[list[int]]) -> list[float]:
        return [-float(len(response)) for response in responses]


@pytest.mark.parametrize(
    ("difficulty", "rows", "expected"),
    [
        ("margin", ROWS, [-2.0, -0.5]),  # a small margin is hard
        ("level", ROWS, [1.0, 7.0]),
        ("length", ROWS, [4.0, 7.0]),
        (lambda row: row["level"] * row["margin"], ROWS, [2.0, 3.5]),
        # The better response's score less the worse one's is what the model gets right: -1 - -2 in row 0.
        (Lengths(), ROWS.select([0]), [-1.0]),
        (Lengths(), ROWS.select([0]).add_column("label", [0.2]), [1.0]),
        # Row 1, ranked c > a = b (tied): scores -1, -1 and -3, and two pairs that the model ranks wrongly by 2.
        (Lengths(), ROWS.select([1]).add_column("ranks", [[1, 1, 0]]), [2.0]),
    ],
)
def test_difficulties_are_numbers_that_rise_with_it(difficulty: Any, rows: Dataset, expected: list[float]) -> None:
    assert difficulties(difficulty, DATA, rows, TOKENIZER, "train_dataset") == expected


def test_equally_hard_rows_keep_their_order() -> None:
    assert easiest_first([2.0, 1.0, 2.0, 0.0]).tolist() == [3, 1, 0, 2]


@pytest.mark.parametrize(
    ("difficulty", "message"),
    [
        ("lvl", "curriculum: train_dataset has no column lvl to tell the difficulty; name another, or use 'length'"),
        (
            lambda row: 1 / (row["level"] - 7),
            r"fails on row 1 of train_dataset with ZeroDivisionError: .* it gets a dict",
        ),
        ("empty", r"train_dataset: 1 row has a difficulty that is not a number \(row 1\); fix or drop them, or take"),
        (
            SimpleNamespace(score_ids=None, tokenizer=tiny_tokenizer(eos_token="<other>")),
            "has other tokens than the mod",
        ),
    ],
)
def test_rows_without_difficulty_are_refused(difficulty: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        difficulties(difficulty, DATA, ROWS, TOKENIZER, "train_dataset")
