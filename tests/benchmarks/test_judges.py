"""Answers of a language model that are stored as they come, and the figures that choose a wording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from benchmarks.judges import WORDINGS, Remembered, choice, table
from hf_align.feedback import RewardJudge, measure_judge
from hf_align.feedback.judges.question import Question


class Counting:
    """Log-odds of A by the difference of lengths, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any, Any]] = []

    def log_odds(self, prompts: Sequence[Any], firsts: Sequence[Any], seconds: Sequence[Any]) -> np.ndarray:
        self.asked += zip(prompts, firsts, seconds, strict=True)
        return np.array(
            [0.5 + len(first) - len(second) for _, first, second in zip(prompts, firsts, seconds, strict=True)]
        )


def test_what_was_answered_before_a_stop_is_not_asked_again(tmp_path: Path) -> None:
    model, path = Counting(), tmp_path / "answers.jsonl"
    first = Remembered("default", lambda: model, path).compare(["p", "q"], ["aa", "b"], ["b", "bb"])
    assert len(model.asked) == 4
    with path.open("a") as file:
        file.write('["half a li')
    again = Remembered("default", lambda: model, path)
    assert again.compare(["p", "q"], ["aa", "b"], ["b", "bb"]) == first and len(model.asked) == 4
    assert again.compare(["p"], ["aa"], ["b"]) == first[:1] and len(model.asked) == 6, "twice in one go is asked twice"
    orders = first[0].orders
    assert orders is not None and orders == pytest.approx((expit(1.5), 1 - expit(-0.5)))
    [unbiased] = Remembered("default", lambda: model, path, bias=0.5).compare(["p"], ["aa"], ["b"])
    assert unbiased.preference == pytest.approx(expit(1))


def test_a_wording_is_judged_by_both_orders_and_its_bias() -> None:
    odds, better = np.array([[3.0, 3.0, 1.0], [1.0, 3.0, 3.0]]), np.array([1, 1, -1])
    assert choice(odds, better, 0.0) == {"agreement": 0.5, "flips": 1.0}, "A whatever is shown"
    assert choice(odds, better, 2.0) == {"agreement": pytest.approx((1 + 0.5 + 1) / 3), "flips": pytest.approx(1 / 3)}


def test_every_wording_is_a_question_and_every_judge_a_row() -> None:
    assert [Question(*each).is_default for each in WORDINGS.values()].count(True) == 2
    rows = [{"prompt": f"{n}", "chosen": "long one", "rejected": f"{n}", "votes": [1, 1, 0]} for n in range(30)]
    judge = RewardJudge(lambda prompts, responses: [float(len(each)) for each in responses], "long")
    result = json.loads(json.dumps(measure_judge(judge, rows, resamples=50).to_json()))
    lines = table({"long": result})
    # All 30 right: Wilson's interval begins at 30 / (30 + 1.96²).
    assert len(lines) == 4 and lines[3].startswith("| long | 1.000 [.886, 1.000] |") and "sees no order" in lines[3]
    assert len({line.count("|") for line in lines}) == 1
