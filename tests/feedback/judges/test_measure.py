"""Judges of known faults are named rightly, and small cases equal a count by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.feedback import FunctionJudge, JudgeReport, RewardJudge, measure_judge
from tests.feedback.judges.planted import ALWAYS_A, Planted, Unasked, length


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted(240)


def _measure(judge: Any, rows: Any, **options: Any) -> JudgeReport:
    return measure_judge(judge, rows, **{"resamples": 100, **options})


def _pair(chosen: str, more: list[float], rejected: str, less: list[float], **others: Any) -> dict[str, Any]:
    return {"prompt": f"to {chosen}", "chosen": chosen, "rejected": rejected} | {
        "chosen_ratings": more,
        "rejected_ratings": less,
        **others,
    }


ROWS = [
    _pair("aaaa", [3, 3], "bb", [0, 0], chosen_source="x", rejected_source="me"),
    _pair("cc", [1, 1], "dddd", [0, 0], chosen_source="x", rejected_source="y"),
    _pair("eeee", [2, 0], "ff", [1, -1], chosen_source="me", rejected_source="x"),
    _pair("gggg", [1, 1], "hh", [0, 0], chosen_source="x", rejected_source="y"),
]


def _by_hand(prompt: str, first: str, second: str) -> Any:
    """Right on the first pair, wrong on the second, A on the third, no opinion on the fourth."""
    if "g" in first + second:
        return None
    if "e" in first + second:
        return "first"
    return "first" if first in ("aaaa", "dddd") else "second"


@pytest.mark.parametrize("seed", range(3))  # draws which response is given first
def test_every_figure_of_a_small_case_equals_a_count_by_hand(seed: int) -> None:
    metrics = _measure(FunctionJudge(_by_hand, "me"), ROWS, seed=seed).metrics
    agreement = metrics["agreement"]
    assert (agreement["pairs"], agreement["no_opinion"], agreement["undecided"]) == (3, 1, 0)
    assert agreement["judge"] == (1 + 0 + 0.5) / 3
    assert agreement["people"] == pytest.approx((1 + 1 + 0.75) / 3), "2 > 1, 2 > -1, 0 < 1, 0 > -1"
    assert agreement["lead"] == pytest.approx(agreement["judge"] - agreement["people"])
    parts = [(part["low"], part["high"], part["pairs"], part["judge"], part["people"]) for part in agreement["by_gap"]]
    assert agreement["gap"] == "ratings" and parts == [(0.5, 1.0, 2, 0.25, 0.875), (2.0, None, 1, 1.0, 1.0)]
    verdicts, position = metrics["verdicts"], metrics["position"]
    assert (verdicts["opinions"], verdicts["ties"], verdicts["flips"]) == (0.75, pytest.approx(1 / 3), 1 / 3)
    assert position["first_shown"] == pytest.approx((0.5 + 0.5 + 1) / 3) and position["pairs"] == 3
    assert position["effect"] == pytest.approx(1 / 6) and position["effect_after"] == 0
    by_length = metrics["length"]
    assert by_length["judge"] == pytest.approx((1 + 1 + 0.5) / 3) and by_length["people"] == pytest.approx(2 / 3)
    assert by_length["people_longer"]["agreement"] == 0.75 and by_length["people_shorter"]["agreement"] == 0
    own = metrics["self_preference"]  # its own is people's choice in the third pair, not in the first
    assert own["pairs"] == 2 and own["judge"] == (0 + 0.5) / 2 and own["people"] == 0.5
    assert metrics["calibration"]["ece"] == pytest.approx(2 / 6), "the second pair is 1 off, in both directions"
    assert not metrics["calibration"]["soft"]


def test_a_judge_that_always_says_a_gives_ties_only_and_is_not_fit(planted: Planted) -> None:
    report = _measure(ALWAYS_A, planted.rows)
    assert report.fit is False and "no better than chance" in report.metrics["fit"]["reasons"][0]
    position = report.metrics["position"]
    assert position["first_shown"] == 1 and position["effect"] == 0.5 and position["effect_after"] == 0
    assert report.metrics["verdicts"]["ties"] == report.metrics["verdicts"]["flips"] == 1
    assert report.metrics["agreement"]["judge"] == 0.5 and report.remarks[0].kind == "all_ties"


def test_a_judge_that_loves_length_is_told_by_its_weight_and_is_not_fit(planted: Planted) -> None:
    report = _measure(RewardJudge(length, tie_band=0), planted.rows)
    by_length = report.metrics["length"]
    assert by_length["judge"] == 1 and abs(by_length["people"] - 0.5) < 0.1
    assert by_length["people_longer"]["agreement"] == 1 and by_length["people_shorter"]["agreement"] == 0
    assert by_length["weight_interval"][0] > 3 and report.fit is False
    assert "leans to long ones" in " ".join(str(report).split())


def test_a_judge_that_draws_lots_is_not_fit_and_sways_with_nothing(planted: Planted) -> None:
    report = _measure(planted.judge(float("inf")), planted.rows)
    low, high = report.metrics["agreement"]["judge_interval"]
    assert low < 0.5 < high and report.fit is False
    low, high = report.metrics["length"]["weight_interval"]
    assert low < 0 < high
    assert str(report).startswith("Not fit: it agrees with people on")


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 0.9, 1.0), (2.0, 0.65, 0.85)])
def test_a_judge_that_knows_quality_is_fit_however_noisy(
    planted: Planted, noise: float, least: float, most: float
) -> None:
    report = _measure(planted.judge(noise), planted.rows)
    agreement, position = report.metrics["agreement"], report.metrics["position"]
    assert report.fit is True and least <= agreement["judge"] <= most
    assert position["sees_order"] is False and position["first_shown"] is None and position["effect_after"] == 0
    low, high = report.metrics["length"]["weight_interval"]
    assert low <= 0 <= high
    by_gap = {part["high"]: part["judge"] for part in agreement["by_gap"]}
    assert by_gap[None] > by_gap[0.5] and "sees no order" in str(report)
    # Votes differ from the quality by 1, the judge of itself by nothing: it is worth more than a person.
    assert (agreement["lead"] > 0) == (noise == 0.0)


def test_a_judge_that_knows_every_probability_has_a_calibration_error_of_chance(planted: Planted) -> None:
    # Votes are normal about the quality: the share for the first is the normal distribution's, not the logistic one's.
    shares = {
        (row["chosen"], row["rejected"]): 0.5
        * math.erfc(-(planted.quality[row["chosen"]] - planted.quality[row["rejected"]]) / 2)
        for row in planted.rows
    }

    def right(prompt: str, first: str, second: str) -> float:
        return shares[first, second] if (first, second) in shares else 1 - shares[second, first]

    table = _measure(FunctionJudge(right, "right"), planted.rows).metrics["calibration"]
    assert table["soft"] and table["ece"] <= table["ece_floor_high"]
    sure = _measure(planted.judge(0.0), planted.rows).metrics["calibration"]
    assert sure["ece"] > 0.02 and sure["pairs"] == 240


def test_a_judge_that_does_not_ask_in_both_orders_is_found_out_by_asking_it_again(planted: Planted) -> None:
    report = _measure(Unasked(), planted.rows, again=50)
    position = report.metrics["position"]
    assert position["pairs_again"] == 50 and position["first_given"] == 1 and position["effect_after"] == 0.5
    assert "order_left" in [remark.kind for remark in report.remarks]
    assert abs(report.metrics["agreement"]["judge"] - 0.5) < 0.12, "the better response isn't always given first"
    assert _measure(Unasked(), planted.rows, again=0).metrics["position"]["first_given"] is None


def test_rows_of_every_layout_give_the_same_figures() -> None:
    texts = {"Great.": [3.0, 2.0], "Fine, all in all.": [1.0, 0.0], "Bad.": [-2.0, -3.0]}
    ranked = [{"prompt": "Film?", "responses": [*texts], "ratings": [*texts.values()]}]
    rated = [{"prompt": "Film?", "response": text, "ratings": votes} for text, votes in texts.items()]
    judge = RewardJudge(length, tie_band=0)
    first, second = (_measure(judge, rows).to_json()["metrics"] for rows in (ranked, rated))
    by_gap = [(part["low"], part["pairs"], part["judge"]) for part in first["agreement"]["by_gap"]]
    assert by_gap == [(1.0, 1, 0.0), (2.0, 2, 1.0)], "great over fine, great over bad and fine over bad"
    assert [(part["low"], part["pairs"], part["judge"]) for part in second["agreement"]["by_gap"]] == by_gap
    hard = _measure(judge, [{"question": "q", "response_j": "Yes, by day.", "response_k": "No."}] * 2)
    assert hard.metrics["agreement"]["judge"] == 1 and hard.metrics["agreement"]["people"] is None
    assert hard.metrics["agreement"]["gap"] is None and hard.metrics["agreement"]["by_gap"] == []
    voted = [{"prompt": f"{n}", "chosen": f"aa{n}", "rejected": f"b{n}", "votes": [1, 1, 0.5, 1]} for n in range(3)]
    votes = _measure(judge, voted).metrics["agreement"]
    assert votes["gap"] == "votes" and votes["people"] == 0.875 and votes["by_gap"][0]["low"] == 0.5
    margins = [{"prompt": f"{n}", "chosen": f"aa{n}", "rejected": "b", "margin": n / 2} for n in range(1, 4)]
    buckets = _measure(judge, margins, gaps=[0.5, 1]).metrics["agreement"]
    assert buckets["gap"] == "margin" and [part["pairs"] for part in buckets["by_gap"]] == [1, 1, 1]


def test_a_sample_is_drawn_by_the_seed_and_told(planted: Planted) -> None:
    once, again = (_measure(planted.judge(1.0), planted.rows, max_pairs=60, seed=3) for _ in range(2))
    assert once.to_json() == again.to_json() and once.facts["pairs"] == 60
    assert "sampled_pairs" in [remark.kind for remark in once.remarks]
    other = _measure(planted.judge(1.0), planted.rows, max_pairs=60, seed=4)
    assert other.metrics["agreement"]["judge"] != once.metrics["agreement"]["judge"]


def test_of_many_texts_to_few_prompts_pairs_have_each_text_once(planted: Planted) -> None:
    rows = [
        {"prompt": "Film?", "response": row[side], "ratings": row[f"{side}_ratings"]}
        for row in planted.rows[:104]
        for side in ("chosen", "rejected")
    ]
    many = _measure(planted.judge(1.0), rows, max_pairs=100, resamples=300)
    few = _measure(planted.judge(1.0), rows[:40], max_pairs=100)
    assert (many.facts["unit"], many.facts["units"], many.facts["pairs"]) == ("pairs", 100, 100)
    assert "with each text once" in str(many)
    assert (few.facts["unit"], few.facts["units"], few.facts["pairs"]) == ("texts", 40, 100)
    # Independent pairs: the interval is as wide as the binomial distribution's.
    agreement = many.metrics["agreement"]
    low, high = agreement["judge_interval"]
    assert (high - low) / 3.92 == pytest.approx((agreement["judge"] * (1 - agreement["judge"]) / 100) ** 0.5, rel=0.25)


def test_agreement_that_is_low_where_people_are_sure_is_not_fit_whatever_the_rest(planted: Planted) -> None:
    gaps = {row["prompt"]: np.mean(row["chosen_ratings"]) - np.mean(row["rejected_ratings"]) for row in planted.rows}
    chosen = {row["chosen"] for row in planted.rows}

    def wrong_where_it_is_plain(prompt: str, first: str, second: str) -> str:
        right = first in chosen
        plain = gaps[prompt] > 2 and len(first + second) % 5 > 1
        return "first" if right != plain else "second"

    report = _measure(FunctionJudge(wrong_where_it_is_plain, "plain"), planted.rows)
    assert report.metrics["agreement"]["judge_interval"][0] > 0.5 and report.fit is False
    assert "furthest apart it agrees on" in report.metrics["fit"]["reasons"][0]


def test_the_page_and_the_text_say_the_same_and_escape_names(planted: Planted) -> None:
    report = _measure(RewardJudge(length, "<b>long</b>"), planted.rows[:40])
    page = report.to_html()
    assert "Not fit: " in page and "&lt;b&gt;long" in page and "<b>long" not in page
    assert page.count("<figure") == 1 and "Agreement by gap" in page
    assert max(map(len, report.to_text(100).splitlines())) <= 100
    assert "undefined" not in report.to_text(100)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_pairs": 0}, "max_pairs is 0; give a whole number from 1"),
        ({"seed": -1}, "seed is -1; give a whole number from 0"),
        ({"again": -1}, "again is -1"),
        ({"gaps": [1.0, 0.5]}, "gaps is"),
        ({"gaps": []}, "gaps is"),
    ],
)
def test_numbers_that_can_not_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        measure_judge(ALWAYS_A, ROWS, **options)


def test_what_is_no_judge_and_judgements_that_are_too_few_are_refused() -> None:
    class Short(Unasked):
        def compare(self, prompts: Any, firsts: Any, seconds: Any) -> list[Any]:
            return []

    with pytest.raises(UserError, match="judge expects a name or a mapping"):
        measure_judge(3, ROWS)  # type: ignore[arg-type]
    assert measure_judge("vader", ROWS, resamples=10).facts["judge"] == "vader"
    with pytest.raises(UserError, match="rows hold no two responses to one prompt"):
        measure_judge(ALWAYS_A, [{"prompt": f"{n}", "response": "a", "rating": n} for n in range(3)])
    with pytest.raises(UserError, match="'unasked' gave 0 judgements on 4 pairs; return one for each"):
        measure_judge(Short(), ROWS)
