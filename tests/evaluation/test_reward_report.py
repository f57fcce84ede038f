"""The report as a whole."""

from types import SimpleNamespace
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.evaluation import reward_report

PAIRS = [{"prompt": f"p{n % 4}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(8)]


def test_any_kind_of_model_is_measured_and_each_text_scored_once() -> None:
    seen: list[Any] = []

    def score(prompts: list[Any], responses: list[Any]) -> list[float]:
        seen.extend(zip(prompts, responses, strict=True))
        return [float("good" in response) for response in responses]

    rows = [*PAIRS, PAIRS[0]]
    from_object = reward_report(SimpleNamespace(score=score), rows, resamples=50)
    assert len(seen) == len(set(seen)) == 16
    from_function = reward_report(score, rows, resamples=50)
    stored = reward_report(None, rows, scores=[[1.0, 0.0]] * 9, resamples=50)
    assert from_object.metrics["accuracy"] == from_function.metrics["accuracy"] == stored.metrics["accuracy"]
    assert stored.metrics["accuracy"]["accuracy"] == 1.0
    assert (stored.facts["rows"], stored.facts["prompts"], stored.facts["texts"]) == (9, 4, 16)


def test_a_model_that_scores_everything_alike_is_called_out() -> None:
    report = reward_report(None, PAIRS, scores=[[2.0, 2.0]] * 8, resamples=20)
    assert report.metrics["accuracy"]["accuracy"] == 0.5
    assert [remark.kind for remark in report.remarks] == ["constant_scores"]
    assert not reward_report(None, PAIRS, scores=[[1.0, 2.0]] * 8, resamples=20).remarks


def test_stored_scores_belong_to_rows_in_their_order() -> None:
    rows = [{"prompt": p, "response": r, "rating": n} for n, (p, r) in enumerate(["pa", "qb", "pc", "qd"])]
    report = reward_report(None, rows, scores=[4.0, 1.0, 3.0, 2.0], resamples=20)
    assert report.metrics["accuracy"]["accuracy"] == 0.5
    for scores, message in (([1.0], "scores has 1 entries and data 4 rows"), ([[1.0, 2.0]] * 4, "row 0 has 1 resp")):
        with pytest.raises(UserError, match=message):
            reward_report(None, rows, scores=scores)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UserError, match="a model or stored scores"):
        reward_report(None, PAIRS)
    with pytest.raises(UserError, match="no two responses to compare"):
        reward_report(len, [{"prompt": "p", "response": "a", "rating": 1.0}])
    with pytest.raises(UserError, match=r"response of row 0 nan, not a finite"):
        reward_report(SimpleNamespace(score=lambda p, r: [float("nan")] * len(r)), PAIRS)
    with pytest.raises(UserError, match="gave 1 scores for 16 responses"):
        reward_report(SimpleNamespace(score=lambda p, r: [0.0]), PAIRS)
