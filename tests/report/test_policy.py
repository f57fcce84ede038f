"""A report on policies: judgements, verdict, text for a terminal, and the page."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hf_align.report.policy.page import render_policy_report
from hf_align.report.policy.sections import SECTIONS, policy_sections
from hf_align.report.policy.text import policy_report_text
from hf_align.report.policy.verdict import policy_verdict
from hf_align.report.verdict import Verdict
from tests.report.page import Page
from tests.report.policy_metrics import FACTS, METRICS, NAN, REMARKS, metrics

ORDER = [
    *("win_rate", "length_controlled", "scores", "kl", "diversity", "length", "lost_ability"),
    *("best_and_worst", "domains"),
]


@pytest.mark.parametrize(
    ("section", "figures", "expected"),
    [
        ("win_rate", {}, "good"),
        ("win_rate", {"win_rate_interval": [0.49, 0.6]}, "fair"),
        ("win_rate", {"win_rate_interval": [0.3, 0.49]}, "bad"),
        ("win_rate", {"win_rate_interval": [NAN, NAN]}, ""),
        ("length_controlled", {"length_controlled_interval": [0.4, 0.49]}, "bad"),
        ("length_controlled", {"length_controlled": NAN, "length_controlled_interval": [NAN, NAN]}, ""),
        ("scores", {"gain_interval": [-0.1, 0.1]}, "fair"),
        ("scores", {"gain_interval": [-0.2, -0.1]}, "bad"),
        ("kl", {"k1": 900.0}, ""),
        ("kl", {"why": "its vocabulary is another"}, ""),
        ("diversity", {"distinct_2": 0.76}, "good"),
        ("diversity", {"distinct_2": 0.7}, "fair"),
        ("diversity", {"self_repetition": 0.4}, "bad"),
        ("length", {"characters": 200.0}, "fair"),
        ("length", {"ended": 0.7}, "fair"),
        ("lost_ability", {"increase": 0.05}, "fair"),
        ("lost_ability", {"increase": 0.05, "unit": "byte"}, "bad"),
        ("lost_ability", {"increase": -0.3}, "good"),
    ],
)
def test_a_section_is_graded_by_its_bounds(section: str, figures: dict[str, Any], expected: str) -> None:
    sections = {each.key: each for each in policy_sections(metrics(**{section: figures}), FACTS)}
    assert sections[section].grade == expected


def test_a_section_has_the_grade_of_the_policy_that_does_worst() -> None:
    several = metrics()
    several["win_rate"]["policies"]["ipo"] = {
        **several["win_rate"]["policies"]["me/dpo<1>"],
        **{"win_rate": 0.3, "win_rate_interval": [0.2, 0.4]},
    }
    section = policy_sections(several, FACTS)[0]
    assert section.grade == "bad" and section.figure == "", "no single figure"
    assert "dpo<1> beats base in 61.0%" in section.sentence and "ipo beats base in 30.0%" in section.sentence


def test_a_gain_without_interval_leaves_no_gap_in_the_sentence() -> None:
    sections = {each.key: each for each in policy_sections(metrics(scores={"gain_interval": [NAN, NAN]}), FACTS)}
    sentence = sections["scores"].sentence
    assert " against base on the same prompts" in sentence and "  " not in sentence and "[" not in sentence


def test_a_part_of_the_data_that_got_worse_is_bad_and_small_ones_are_not_graded() -> None:
    parts = metrics()["domains"]
    parts["films"]["policies"]["me/dpo<1>"].update(win_rate=0.4, win_rate_interval=[0.3, 0.49])
    assert policy_sections(metrics(domains=parts), FACTS)[-1].grade == "bad"
    parts["films"]["prompts"] = 9
    section = policy_sections(metrics(domains=parts), FACTS)[-1]
    assert section.grade == "good" and "tweets" in section.sentence


def verdict(given: dict[str, Any], remarks: Any = ()) -> Verdict:
    return policy_verdict(given, FACTS, policy_sections(given, FACTS), remarks)


def test_the_verdict_names_who_is_better_and_what_it_cost() -> None:
    good = verdict(metrics())
    assert (good.grade, good.title) == ("good", "By VADER: dpo<1> is better than base.")
    assert (
        "dpo<1> wins 61.0% (58.0% at equal length), is 3.10 nats a response away, text by people costs it"
        in good.sentence
    )
    assert "Not checked" not in good.sentence
    assert "Not checked: lost ability." in verdict(metrics(lost_ability=None)).sentence
    assert verdict(metrics(lost_ability={"increase": 0.5})).grade == "fair"
    unclear = verdict(metrics(win_rate={"win_rate_interval": [0.4, 0.6]}))
    assert unclear.title == "By VADER: dpo<1> is neither clearly better nor worse than base."
    worse = verdict(metrics(win_rate={"win_rate_interval": [0.3, 0.4]}))
    assert worse.grade == "bad" and "worse than base" in worse.title
    own = verdict(metrics(), [("judge_is_reward", "...")])
    assert own.grade == "fair" and own.title.endswith("But that is the reward that was trained on.")
    assert verdict(metrics(), [("constant_scores", "...")]).grade == "bad"
    alone = metrics(win_rate=None, length_controlled=None, kl=None, best_and_worst=None, domains=None)
    assert verdict(alone).title == "Nothing to compare: there is one policy."


@pytest.mark.parametrize("width", [80, 120])
def test_the_text_fits_a_terminal(width: int) -> None:
    lines = policy_report_text(METRICS, FACTS, REMARKS, width).splitlines()
    assert max(map(len, lines)) <= width
    starts = [line for line in lines if re.match(r"[1-9] ", line)]
    assert [line[2:].startswith(SECTIONS[key].title) for key, line in zip(ORDER, starts, strict=True)] == [True] * 9
    text = "\n".join(lines)
    assert lines[0].startswith("By VADER") and "! 20% of the responses" in text
    assert "distinct-2" in text and "worst, row 3" in text and "my judge: dpo<1>" in text


def test_the_page_holds_all_sections_in_order_and_loads_nothing() -> None:
    text = render_policy_report(METRICS, FACTS, REMARKS)
    page = Page(text)
    assert page.ids == ["verdict", *ORDER]
    assert page.loads == [f"#{key}" for key in ORDER] and not re.search(r"url\(|@import|https?:", text)
    assert page.tags.count("svg") == 8 and not page.unlabelled and page.tags.count("article") == 40
    assert "script" not in page.tags and "&lt;script&gt;alert(1)" in text and "b" not in page.tags
    assert "me/dpo&lt;1&gt;" in text and "dpo<1>" not in text
    assert len(text) < 200_000


def test_a_section_without_data_says_why() -> None:
    nothing: dict[str, Any] = dict.fromkeys(ORDER)
    facts = FACTS | {"missing": dict.fromkeys(ORDER, "there is one policy")}
    page = render_policy_report(nothing, facts, ())
    assert page.count('<p class="empty">Empty: there is one policy.') == 9
    assert "Nothing to compare" in policy_report_text(nothing, facts, ())
