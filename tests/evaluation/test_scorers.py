"""Judges of texts."""

from types import SimpleNamespace
from typing import Any

import pytest

from hf_align.evaluation.scorers import CHUNK, judge_scores, score_responses
from hf_align.progress import Silent


def test_responses_are_scored_in_order_and_in_parts() -> None:
    sizes: list[int] = []

    def score(prompts: list[str], responses: list[str]) -> list[float]:
        sizes.append(len(prompts))
        return [float(response) for response in responses]

    model: Any = SimpleNamespace(score=score)
    numbers = [float(number) for number in range(CHUNK + 3)]
    assert score_responses(model, ["p"] * len(numbers), [str(n) for n in numbers], Silent()) == numbers
    assert sizes == [CHUNK, 3]


def test_a_function_judges_with_the_rows_columns() -> None:
    def judge(prompts: list[str], responses: list[str], bonus: list[float], finished: list[bool]) -> list[float]:
        return [len(text) + more + 10 * end for text, more, end in zip(responses, bonus, finished, strict=True)]

    texts, finished = {"a": ["x", "yy"], "b": ["", "z"]}, {"a": [True, False], "b": [False, False]}
    scores = judge_scores(judge, ["p", "q"], texts, finished, {"bonus": [0.5, 1.0]})
    assert scores == {"a": pytest.approx([11.5, 3.0]), "b": pytest.approx([0.5, 2.0])}
