from typing import Any

import numpy as np
import pytest

from hf_align.data.embedded.rows import heldout_sentences
from hf_align.errors import UserError
from hf_align.evaluation.ratings import HUMAN, pair_accuracy, rating_report


def test_pair_accuracy_by_hand() -> None:
    human = [0.0, 1.0, 1.2, 3.0]
    # Gaps above .5: (1,0) (2,0) (3,0) (3,1) (3,2); 2 against 1 is too close to count.
    # The scores order 1>0, 3>0, 3>1, 3>2 like people, and tie 2 with 0: 4.5 of 5.
    accuracy, pairs = pair_accuracy([1.0, 2.0, 1.0, 9.0], human)
    assert pairs == 5
    assert accuracy == pytest.approx(4.5 / 5)


def test_pair_accuracy_reversed_and_without_pairs() -> None:
    assert pair_accuracy([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == (0.0, 3)
    accuracy, pairs = pair_accuracy([3.0, 2.0], [1.0, 1.1])
    assert pairs == 0
    assert np.isnan(accuracy)


def test_gap_has_to_be_wider_than_the_limit() -> None:
    assert pair_accuracy([0.0, 1.0], [0.0, 0.5])[1] == 0
    assert pair_accuracy([0.0, 1.0], [0.0, 0.5], min_gap=0.4)[1] == 1


RATINGS = [[-2.0, -3.0, -1.0], [0.0, 1.0, 2.0], [3.0, 3.0, 0.0], [1.0, -1.0, 0.0]]
DOMAINS = ["a", "a", "b", "b"]


def test_report_per_domain_and_overall() -> None:
    report = rating_report({"good": [-2.0, 1.0, 2.0, 0.0], "bad": [2.0, -1.0, -2.0, 0.0]}, RATINGS, DOMAINS)
    assert list(report) == ["all", "a", "b"]
    assert report["all"]["texts"] == 4
    # Two pairs although four texts could make six: a pair never crosses domains.
    assert report["all"]["pairs"] == 2
    good, bad = report["all"]["scorers"]["good"], report["all"]["scorers"]["bad"]
    assert good["r"] == pytest.approx(1.0)
    assert good["pair_accuracy"] == 1.0
    assert bad["r"] == pytest.approx(-1.0)
    assert bad["pair_accuracy"] == 0.0
    assert bad["r_gain"] == pytest.approx(2.0)
    assert "r_gain" not in good
    assert good["r_interval"][0] <= good["r"] <= good["r_interval"][1] + 1e-12


def test_single_rater_against_the_mean_of_the_others() -> None:
    report = rating_report({"any": [0.0] * 4}, RATINGS, DOMAINS)
    expected = []
    for rater in range(3):
        own = [row[rater] for row in RATINGS]
        others = [np.mean([value for place, value in enumerate(row) if place != rater]) for row in RATINGS]
        expected.append(np.corrcoef(own, others)[0, 1])
    assert report["all"]["scorers"][HUMAN]["r"] == pytest.approx(np.mean(expected))
    # Domain a: every rater orders its pair; domain b: raters 0 and 1 do (3 > 1, 3 > -1), rater 2 ties
    # (0 = 0) against others 3 and 0: one half.
    assert report["b"]["scorers"][HUMAN]["pair_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_lead_over_a_single_rater_is_paired() -> None:
    human = report_of(scores := [-2.0, 1.0, 2.0, 0.0], RATINGS)
    assert human["r_gain"] == pytest.approx(1 - human["r"])
    assert human["r_gain_interval"][0] <= human["r_gain"] <= human["r_gain_interval"][1]
    # Raters of one mind order every resample as the scores do, however much r varies between resamples.
    agreed = report_of([1.0, 2.0, 2.5, 9.0], [[value] * 3 for value in (1.0, 2.0, 2.5, 9.0)])
    assert [agreed["r_gain"], *agreed["r_gain_interval"]] == pytest.approx([0, 0, 0], abs=1e-12)
    assert report_of(scores[::-1], RATINGS)["r_gain"] < 0


def report_of(scores: list[float], ratings: list[list[float]]) -> dict[str, Any]:
    return rating_report({"any": scores}, ratings, ["a"] * 4)["all"]["scorers"][HUMAN]


def test_a_rater_less_in_one_text_uses_the_raters_all_texts_have() -> None:
    report = rating_report({"any": [1.0, 2.0]}, [[1.0, 2.0], [1.0, 2.0, 5.0]], ["a", "b"])
    assert report["b"]["texts"] == 1


def test_pairs_share_a_prompt_unless_asked_otherwise() -> None:
    # Right within each prompt, and off by the prompt between them.
    scores, human, prompts = [5.0, 6.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"]
    assert pair_accuracy(scores, human, prompts=prompts) == (1.0, 2)
    assert pair_accuracy(scores, human) == (2 / 6, 6)
    ratings = [[value, value] for value in human]
    for domains in (["d"] * 4, ["d", "d", "e", "e"]):
        report = rating_report({"s": scores}, ratings, domains, prompts=prompts)["all"]
        assert (report["pairs"], report["scorers"]["s"]["pair_accuracy"]) == (2, 1.0)
        assert report["scorers"][HUMAN]["pair_accuracy"] == 1.0
    across = rating_report({"s": scores}, ratings, ["d"] * 4)["all"]
    assert (across["pairs"], across["scorers"]["s"]["pair_accuracy"]) == (6, 2 / 6)
    alone = rating_report({"s": scores}, ratings, ["d"] * 4, prompts=["a", "b", "c", "d"])["all"]
    assert alone["pairs"] == 0 and np.isnan(alone["scorers"]["s"]["pair_accuracy"])
    with pytest.raises(UserError, match="prompts has 1 rows"):
        rating_report({"s": scores}, ratings, ["d"] * 4, prompts=["a"])


def test_the_embedded_sentences_of_a_domain_share_one_prompt() -> None:
    rows = heldout_sentences("validation")
    scores = {"length": [float(len(text)) for text in rows["text"]]}
    figures = [
        rating_report(scores, rows["ratings"][:], rows["domain"][:], prompts=prompts, resamples=10)
        for prompts in (rows["prompt"][:], None)
    ]
    assert figures[0] == figures[1], "so the quickstart's figures are those of one prompt"


def test_bad_rows_are_named() -> None:
    with pytest.raises(UserError, match="row 1 has fewer than two"):
        rating_report({"s": [1.0, 2.0]}, [[1.0, 2.0], [1.0]], ["a", "a"])
    with pytest.raises(UserError, match="s has 1 rows"):
        rating_report({"s": [1.0]}, [[1.0, 2.0], [1.0, 3.0]], ["a", "a"])
