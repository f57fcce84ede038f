"""The report as a whole."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from hf_align import RewardModel
from hf_align.errors import UserError
from hf_align.evaluation import reward_report

PAIRS = [{"prompt": f"p{n % 4}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(8)]


def test_any_kind_of_model_is_measured_and_each_text_scored_once() -> None:
    seen: list[Any] = []

    def score(prompts: list[Any], responses: list[Any]) -> list[float]:
        seen.extend(zip(prompts, responses, strict=True))
        return [float("good" in response) for response in responses]

    rows = [*PAIRS, PAIRS[0]]
    from_object = reward_report(SimpleNamespace(score=score), rows, resamples=50, robustness_texts=0)
    assert len(seen) == len(set(seen)) == 16
    assert reward_report(SimpleNamespace(score=score), rows, resamples=5).metrics["robustness"] is not None
    from_function = reward_report(score, rows, resamples=50, robustness_texts=0)
    stored = reward_report(None, rows, scores=[[1.0, 0.0]] * 9, resamples=50)
    assert from_object.metrics["accuracy"] == from_function.metrics["accuracy"] == stored.metrics["accuracy"]
    assert stored.metrics["accuracy"]["accuracy"] == 1.0
    assert (stored.facts["rows"], stored.facts["prompts"], stored.facts["texts"]) == (9, 4, 16)


def test_a_model_that_scores_everything_alike_is_called_out() -> None:
    report = reward_report(None, PAIRS, scores=[[2.0, 2.0]] * 8, resamples=20)
    assert report.metrics["accuracy"]["accuracy"] == 0.5
    assert [remark.kind for remark in report.remarks] == ["constant_scores", "few_units"]
    assert "every response the same score (2)" in report.remarks[0].sentence
    kinds = [remark.kind for remark in reward_report(None, PAIRS, scores=[[1.0, 2.0]] * 8, resamples=20).remarks]
    assert kinds == ["reversed", "temperature_limit", "few_units"]


def test_data_in_which_people_prefer_nothing_is_called_so() -> None:
    report = reward_report(None, [row | {"label": 0.5} for row in PAIRS], scores=[[1.0, 2.0]] * 8, resamples=20)
    assert [remark.kind for remark in report.remarks] == ["all_undecided", "few_units"]


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


SECTIONS = ["accuracy", "tau", "calibration", "robustness", "length", "subsets", "best_of_n", "worst_rows"]
WORDS = "dull poor plain fair good great grand best".split()


def _score(prompts: list[Any], responses: list[Any]) -> list[float]:
    """Place in WORDS of the first of them that stands in a response; upper case is worth a point."""
    places = [next((n for n, word in enumerate(WORDS) if word in response.lower()), 0) for response in responses]
    return [
        place + response.isupper() + 0.01 * len(response) for place, response in zip(places, responses, strict=True)
    ]


def _rows(layout: str) -> list[dict[str, Any]]:
    rows = []
    for n in range(24):
        row = {"prompt": [{"role": "user", "content": f"Film {n}?"}], "subset": "ab"[n % 2]}
        first, second = WORDS[n % 7], WORDS[n % 7 + 1]
        if layout == "pairs":
            row |= {"chosen": f"A {second} film.", "rejected": f"A {first} film.", "votes": [1, 1, 0]}
        elif layout == "lists":
            row |= {"chosen": [f"{second}{end}" for end in "xyz"], "rejected": [f"{first}{end}" for end in "xyz"]}
        elif layout == "rankings":
            row |= {"responses": [f"A {word} film {n}." for word in WORDS[:4]], "ranking": [3, 2, 1, 0]}
        else:
            row |= {"response": f"A {second} film {n}.", "ratings": [n % 7 + 1.0, n % 7]}
            row["prompt"] = f"Film {n % 6}?"
        rows.append(row)
    return rows


@pytest.mark.parametrize("layout", ["pairs", "lists", "rankings", "ratings"])
def test_every_layout_fills_the_sections_in_their_order_with_plain_figures(layout: str) -> None:
    report = reward_report(
        _score, _rows(layout), judge=lambda prompts, responses: _score(prompts, responses), resamples=30
    )
    assert list(report.metrics) == SECTIONS and report.facts["layout"] == layout
    json.dumps([report.metrics, report.facts])
    absent = {"pairs": ["tau"], "lists": ["tau"], "rankings": [], "ratings": []}[layout]
    assert [name for name, section in report.metrics.items() if section is None] == absent
    assert list(report.facts["missing"]) == absent
    assert report.metrics["accuracy"]["accuracy"] == 1.0
    assert (report.metrics["length"]["styles"] is not None) == (layout == "lists")
    assert len(report.metrics["robustness"]["changes"]) >= 14
    again = reward_report(_score, _rows(layout), judge=lambda p, r: _score(p, r), resamples=30)
    assert json.dumps(again.metrics) == json.dumps(report.metrics)


def test_a_reward_model_scores_tokens_and_the_rows_options(tiny_model_dir: str) -> None:
    model = RewardModel.from_backbone(tiny_model_dir)
    report = reward_report(model, _rows("pairs")[:6], resamples=10, changes=["lower_case"], robustness_texts=4)
    rows = _rows("pairs")[:6]
    scores = [model.score([row["prompt"]] * 2, [row["chosen"], row["rejected"]]) for row in rows]
    stored = reward_report(None, rows, scores=scores, resamples=10)
    assert stored.metrics["accuracy"]["margin"] == pytest.approx(report.metrics["accuracy"]["margin"], rel=1e-3)
    assert (report.facts["length_unit"], stored.facts["length_unit"]) == ("tokens", "words")
    layouts = report.metrics["robustness"]["layouts"]
    assert [layout["name"] for layout in layouts] == ["alone", "padding_side"]
    assert all(layout["largest_difference"] < 1e-5 for layout in layouts)
    with pytest.raises(UserError, match="judge is the model itself"):
        reward_report(model, rows, judge=model)
