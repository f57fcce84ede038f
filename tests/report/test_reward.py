"""A report on a reward model: judgements, verdict, text for a terminal, and the page."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from hf_align.report.figures import decimal, ends, percent
from hf_align.report.reward.page import render_reward_report
from hf_align.report.reward.sections import SECTIONS, sections_of
from hf_align.report.reward.text import report_text
from hf_align.report.reward.verdict import verdict_of
from tests.report.page import Page
from tests.report.reward_metrics import FACTS, METRICS, NAN, REMARKS, UNCERTAINTY, metrics

ORDER = ["accuracy", "tau", "calibration", "robustness", "length", "subsets", "best_of_n", "worst_rows"]


def grade(section: str, **figures: Any) -> str:
    return next(each.grade for each in sections_of(metrics(**{section: figures}), FACTS) if each.key == section)


def table(ece: float, floor: float = 0.02) -> dict[str, Any]:
    return {**METRICS["calibration"]["raw"], "ece": ece, "ece_floor": floor, "ece_floor_high": floor + 0.005}


@pytest.mark.parametrize(
    ("section", "figures", "expected"),
    [
        ("accuracy", {"accuracy": 0.86, "vote_agreement": 0.84}, "good"),
        ("accuracy", {"accuracy": 0.7, "accuracy_interval": [0.6, 0.8]}, "fair"),
        ("accuracy", {"accuracy": 0.7, "accuracy_interval": [0.49, 0.8]}, "bad"),
        ("accuracy", {"accuracy": NAN, "accuracy_interval": [NAN, NAN]}, ""),
        ("tau", {"tau": 0.4}, "fair"),
        ("tau", {"tau": 0.1, "tau_interval": [-0.1, 0.3]}, "bad"),
        ("tau", {"tau": NAN}, ""),
        ("calibration", {"raw": table(0.03)}, "good"),
        ("calibration", {"raw": table(0.09), "fitted": table(0.03)}, "fair"),
        ("calibration", {"raw": table(0.09), "fitted": table(0.08)}, "bad"),
        ("calibration", {"raw": table(0.09), "fitted": None, "temperature": None}, "bad"),
        ("length", {"excess": -0.03}, "good"),
        ("length", {"excess": -0.1, "excess_interval": [-0.15, -0.05]}, "fair"),
        ("length", {"excess": -0.1, "excess_interval": [-0.25, 0.05]}, "good"),
        ("length", {"excess": 0.2}, "bad"),
        ("length", {"reward": NAN, "excess": NAN}, ""),
        ("subsets", {"worst": None}, ""),
        ("best_of_n", {"curve": [{**METRICS["best_of_n"]["curve"][-1], "share": None}]}, ""),
        ("worst_rows", {}, ""),
    ],
)
def test_a_section_is_graded_by_its_bounds(section: str, figures: dict[str, Any], expected: str) -> None:
    if section == "worst_rows":
        assert sections_of(METRICS, FACTS)[-1].grade == expected
    else:
        assert grade(section, **figures) == expected


def test_a_subset_no_better_than_chance_is_bad_and_one_far_behind_is_fair() -> None:
    rows = copy.deepcopy(METRICS["subsets"]["subsets"])
    assert grade("subsets", subsets=rows) == "good"
    rows[0].update(accuracy=0.66, accuracy_interval=[0.6, 0.7])
    assert grade("subsets", subsets=rows) == "fair"
    rows[0].update(accuracy=0.53, accuracy_interval=[0.49, 0.6])
    assert grade("subsets", subsets=rows) == "bad"


def test_robustness_is_graded_by_the_mean_and_the_worst_change() -> None:
    change = METRICS["robustness"]["changes"][0]
    for mean, worst, expected in ((0.01, 0.03, "good"), (0.01, 0.05, "fair"), (0.02, 0.03, "fair"), (0.02, 0.2, "bad")):
        changes = [{**change, "drop": worst}]
        assert grade("robustness", mean_drop=mean, changes=changes) == expected, (mean, worst)


def test_picking_what_only_the_model_likes_is_no_good_best_of_n() -> None:
    curve = [dict(point, share=0.9) for point in METRICS["best_of_n"]["curve"]]
    assert grade("best_of_n", curve=curve) == "good"
    curve[-1]["gold"] = curve[-2]["gold"] - 0.001
    assert grade("best_of_n", curve=curve) == "good", "noise"
    curve[-1]["gold"] = 0.3
    assert grade("best_of_n", curve=curve) == "fair"
    said = sections_of(metrics(best_of_n={"curve": curve}), FACTS)[6].sentence
    assert "More than 8 make it worse" in said


def verdict(**sections: Any) -> str:
    return verdict_of(sections_of(metrics(**sections), FACTS), ()).title


def test_the_verdict_follows_the_worst_grades_and_says_what_was_not_checked() -> None:
    assert verdict() == "With care: 3 of 7 checks are good."
    fair = {"calibration": {"raw": table(0.02)}, "length": {"excess": 0.0}, "robustness": None, "best_of_n": None}
    assert verdict(**fair) == "Yes, as far as this was checked: all 5 checks are good."
    assert verdict(**fair, subsets=None, tau={"tau": 0.1, "tau_interval": [-0.1, 0.2]}).startswith(
        "Not for everything: 1 check of 4 failed"
    )
    assert verdict(accuracy={"accuracy_interval": [0.4, 0.9]}).startswith("No: it does not order")
    assert verdict_of(sections_of(METRICS, FACTS), [("constant_scores", "...")]).grade == "bad"
    said = verdict_of(sections_of(metrics(**fair), FACTS), ()).sentence
    assert said.endswith("Not checked: robustness, best of n.")


@pytest.mark.parametrize(
    ("entropy", "expected", "said"),
    [
        ({}, "good", "Several members see more than one."),
        ({"gain_interval": [-0.01, 0.05]}, "fair", "not clearly better than the difference alone"),
        ({"auroc_interval": [0.5, 0.8]}, "bad", "not clearly better than chance"),
        ({"auroc": NAN, "auroc_interval": [NAN, NAN]}, "", "nothing to tell apart"),
    ],
)
def test_an_ensembles_report_says_last_whether_it_knows_where_it_errs(
    entropy: dict[str, Any], expected: str, said: str
) -> None:
    measures = [each | entropy if each["name"] == "entropy" else each for each in UNCERTAINTY["measures"]]
    changed = METRICS | {"uncertainty": UNCERTAINTY | {"measures": measures}}
    section = sections_of(changed, FACTS)[-1]
    assert (section.key, section.grade) == ("uncertainty", expected) and said in section.sentence
    assert "std over dropout passes" in str(section.tables[0].rows[-1])
    text, page = report_text(changed, FACTS, REMARKS, 120), Page(render_reward_report(changed, FACTS, REMARKS))
    assert text.index("    row 0") < text.index("9 Uncertainty") and page.ids[-1] == "uncertainty"
    assert page.tags.count("svg") == 7 + (2 if expected else 0)
    assert max(map(len, text.splitlines())) <= 120
    empty = sections_of(METRICS | {"uncertainty": None}, {})[-1]
    assert empty.empty and "only an ensemble" in empty.sentence


def test_a_section_without_data_says_why() -> None:
    nothing: dict[str, Any] = dict.fromkeys(ORDER)
    for section in sections_of(nothing, {"missing": {"tau": "no reason at all"}}):
        assert section.empty and section.sentence.startswith("Empty: "), section.key
        assert section.sentence.endswith("no reason at all.") == (section.key == "tau")


def test_numbers_that_are_undefined_are_said_to_be() -> None:
    assert [percent(NAN), percent(None), decimal(None), ends([NAN, 1.0]), ends(None)] == ["undefined"] * 3 + ["", ""]
    assert [percent(0.8126), decimal(-0.001), decimal(0.5, 1, sign=True)] == ["81.3%", "0.00", "+0.5"]
    assert ends([0.71, 0.8], 100, 1) == "[71.0, 80.0]"


@pytest.mark.parametrize("width", [80, 120])
def test_the_text_fits_a_terminal(width: int) -> None:
    lines = report_text(METRICS, FACTS, REMARKS, width).splitlines()
    assert max(map(len, lines)) <= width
    starts = [line for line in lines if re.match(r"[1-8] ", line)]
    assert [line[2:].startswith(SECTIONS[key].title) for key, line in zip(ORDER, starts, strict=True)] == [True] * 8
    assert lines[0].startswith("With care") and "! Pairs cross prompts" in "\n".join(lines)


def test_the_page_holds_all_sections_in_order_and_loads_nothing() -> None:
    text = render_reward_report(METRICS, FACTS, REMARKS)
    page = Page(text)
    assert page.ids == ["verdict", *ORDER]
    assert page.loads == [f"#{key}" for key in ORDER] and not re.search(r"url\(|@import|https?:", text)
    assert page.tags.count("svg") == 7 and not page.unlabelled
    assert "script" not in page.tags and "&lt;script&gt;alert(1)" in text
    assert "me/reward&lt;1&gt;" in text and page.tags.count("b") == 0
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert len(text) < 150_000


def test_an_empty_page_still_says_why_each_section_is_empty() -> None:
    nothing: dict[str, Any] = dict.fromkeys(ORDER)
    page = render_reward_report(nothing, {}, ())
    assert Page(page).ids == ["verdict", *ORDER]
    assert page.count('<p class="empty">Empty: ') == 8
    assert "Nothing could be judged." in page


def test_styles_and_people_get_their_tables() -> None:
    styles = {"styles": ["concise", "detailed"], "matrix": [[0.8, 0.4], [0.9, 0.7]], "rows": 30, "easy": 0.9}
    styles |= {"hard": 0.4, "normal": 0.75, "average": 0.68, "hard_interval": [0.3, 0.5]}
    people = {
        "all": {"texts": 900, "r": 0.8, "r_interval": [0.78, 0.82], "why": None, "human_r": 0.89, "worth": 0.5},
        "tweets": {"texts": 1, "r": None, "r_interval": None, "why": "undefined: all ratings are equal"},
    }
    changed = metrics(length={"styles": styles}, accuracy={"people": people})
    text, page = report_text(changed, FACTS, (), 120), render_reward_report(changed, FACTS, ())
    for shown in (text, page):
        assert "40.0%" in shown and "worse: detailed" in shown and "undefined: all ratings are equal" in shown
        assert "0.800 [0.780, 0.820]" in shown
