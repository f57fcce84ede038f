"""Evaluation of reward models on pairs, with scores set by hand."""

from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from hf_align.errors import UserError
from hf_align.evaluation.pairs import measure_on_pairs


class Model:
    """A reward model whose scores are known."""

    def __init__(self, tokenizer: Any, scores: dict[str, float]) -> None:
        self.tokenizer, self.scores = tokenizer, scores
        self.asked: list[str] = []

    def score(self, prompts: list[str], responses: list[str]) -> list[float]:
        self.asked += prompts
        return [self.scores[response] for response in responses]


def test_a_tie_counts_half(tiny_model_dir: str) -> None:
    rows = Dataset.from_list(
        [{"prompt": "p", "chosen": chosen, "rejected": rejected} for chosen, rejected in ("ab", "ac", "bd", "bc")]
    )
    model: Any = Model(AutoTokenizer.from_pretrained(tiny_model_dir), {"a": 1.0, "b": 0.0, "c": 3.0, "d": 0.0})
    found = measure_on_pairs(model, rows, resamples=50)
    assert found["pairs"] == 4
    assert found["accuracy"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert found["margin"] == pytest.approx((1 - 2 + 0 - 3) / 4)
    assert found["accuracy_interval"][0] <= found["accuracy"] <= found["accuracy_interval"][1]


def test_a_prompt_that_both_begin_with_is_told_apart(tiny_model_dir: str) -> None:
    rows = Dataset.from_list([{"chosen": "Say hi. Hi!", "rejected": "Say hi. No."}] * 2)
    model: Any = Model(AutoTokenizer.from_pretrained(tiny_model_dir), {" Hi!": 1.0, " No.": 0.5})
    assert measure_on_pairs(model, rows, resamples=50)["accuracy"] == 1
    assert set(model.asked) == {"Say hi."}


def test_rows_that_cannot_be_used(tiny_model_dir: str) -> None:
    model: Any = Model(AutoTokenizer.from_pretrained(tiny_model_dir), {})
    with pytest.raises(UserError, match=r"^data: 1 row has an empty chosen \(row 0\)"):
        measure_on_pairs(model, Dataset.from_list([{"prompt": "p", "chosen": "", "rejected": "b"}]))
