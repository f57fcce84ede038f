"""Rounds of self-improvement as a page, a table and sentences."""

from __future__ import annotations

from typing import Any

import pytest

from hf_align.model_cards import CardFacts, render_card
from hf_align.report.improvement import (
    COLUMNS,
    improvement_remarks,
    improvement_rows,
    improvement_text,
    render_improvement,
    stop_sentence,
)


def policy(length: float, kl: float | None) -> dict[str, Any]:
    return {"length": length, "diversity": {"distinct_2": 0.5}, "kl": {} if kl is None else {"k3": kl}}


def rate(value: float) -> dict[str, Any]:
    return {"win_rate": value, "win_rate_interval": [value - 0.1, value + 0.1]}


def entry(number: int, training: float, held_out: float) -> dict[str, Any]:
    return {
        "round": number,
        "judging": {"tie_share": 0.25},
        "pairs": {"pairs": 12, "anchored": 6 * (number > 1)},
        "policy": policy(10.0 + number, 0.1 * number),
        "training": {"best": rate(training), "start": rate(training)},
        "held_out": {"best": rate(held_out), "start": rate(held_out)},
        "votes": {"accuracy": 0.6, "accuracy_interval": [0.48, 0.7]},
        "verdict": {"held_out": held_out, "training": training},
    }


def content(**changes: Any) -> dict[str, Any]:
    return {
        **{"model": "a <b>", "judge": "longer", "held_out_judge": "vader", "prompts": 50, "held_out_prompts": 200},
        "labelled_pairs": 80,
        "rule": {"false_stop": 0.05, "gain_share": 1 / 3, "units": 200, "detectable_fall": 0.11},
        "start": {"policy": policy(10.0, None)},
        "rounds": [entry(1, 0.7, 0.6), entry(2, 0.9, 0.45)],
        "best": 1,
        "stopped": {"round": 2, "reason": "outruns"},
        **changes,
    }


def test_the_page_has_both_judges_curves_by_round_and_escapes_names() -> None:
    page = render_improvement(content())
    assert page.count("<svg") == 5 and "a &lt;b&gt;" in page and "<b>" not in page.split("<main>")[1].split("<p")[1]
    assert page.count(">training judge</span>") == 2 and page.count(">held-out judge</span>") == 2
    assert "training judge: 0 0.5, 1 0.7, 2 0.9; held-out judge: 0 0.5, 1 0.6, 2 0.45" in page
    assert "The policy of round 1 is the best one" in page and "not fit for this task" in page


def test_a_row_has_each_rounds_figures_and_the_start_its_own() -> None:
    start, first, second = (dict(zip(COLUMNS, row, strict=True)) for row in improvement_rows(content()))
    assert (start["round"], start["pairs"], start["tokens"], start["KL"]) == ("start", "", "10.0", "0.00")
    assert (first["pairs"], first["ties"], first["KL"]) == ("12", "25%", "0.10")
    assert second["held-out judge"] == "0.45 [0.35, 0.55]" and second["over the best"] == "0.45"
    assert second["judge and people"] == "0.60 [0.48, 0.70]"
    assert improvement_text(content()).splitlines()[-1].split()[:3] == ["2", "12", "6"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [("falls", "round 2 is worse"), ("outruns", "less than 33%"), ("no_pairs", "different scores"), ("rounds", "last")],
)
def test_each_end_of_rounds_has_a_sentence(reason: str, words: str) -> None:
    assert words in stop_sentence(content(stopped={"round": 2, "reason": reason}))


def test_a_run_that_is_not_finished_or_came_to_nothing_is_shown_too() -> None:
    text = improvement_text(content(stopped=None, best=0, rounds=[]))
    assert "not finished" in text and "the start" in text and "not fit" not in text
    assert "<svg" in render_improvement(content(stopped=None, best=0, rounds=[]))
    ended = {"round": 1, "judging": {"tie_share": 1.0}, "pairs": {"pairs": 0, "anchored": 0}}
    assert "100%" in improvement_text(content(rounds=[ended], best=0, stopped={"round": 1, "reason": "no_pairs"}))
    few = {**content()["rule"], "detectable_fall": 0.6, "units": 8}
    assert any("8 held-out prompts are too few" in each for each in improvement_remarks(content(rule=few)))


def test_the_card_of_the_best_policy_says_how_its_pairs_were_made() -> None:
    assert "How its pairs were made" not in render_card(CardFacts("dpo", "mine"))
    config = {"num_samples": 4, "max_new_tokens": 64, "temperature": 0.9, "pairs": "best", "anchor_share": 0.5}
    improvement = {
        **{"judge": "longer", "held_out_judge": "vader", "held_out_prompts": 200, "best": 1, "rounds": 2},
        **{"pairs": [12], "stop": "stopped there", "config": {**config, "reference": "last"}},
    }
    card = render_card(CardFacts("dpo", "mine", improvement=improvement))
    for words in ("`longer`", "`vader`, which no training saw", "round 1 of 2", "50% of the prompts", "stopped there"):
        assert words in card
