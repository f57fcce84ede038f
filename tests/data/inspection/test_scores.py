import random
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from hf_align.data.inspection.scores import Scores, off_scale, score_columns
from tests.data.inspection.checking import by_kind, found_by


def spearman(one: Any, two: Any) -> float:
    result: Any = spearmanr(one, two)
    return float(result.statistic)


def scored(chosen: list[Any], rejected: list[Any], name: str = "score", **columns: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for n, (one, two) in enumerate(zip(chosen, rejected, strict=True)):
        row = {"prompt": f"Question {n}?", "chosen": f"Good answer {n}.", "rejected": f"Bad answer {n}."}
        others = {column: values[n] for column, values in columns.items()}
        rows.append(row | {f"chosen_{name}": one, f"rejected_{name}": two} | others)
    return rows


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["chosen_score", "rejected_score"], ["chosen_score/rejected_score"]),
        (["score_chosen", "score_rejected"], ["score_chosen/score_rejected"]),
        (["chosen-rating", "rejected-rating", "other"], ["chosen-rating/rejected-rating"]),
        (["chosen_ratings", "rejected_rating"], []),  # no such rival
        (["chosen_tokens", "rejected_tokens", "reward_chosen", "reward_rejected"], None),
        (["prompt", "responses", "ranking", "helpfulness", "reward"], ["reward", "helpfulness"]),
    ],
)
def test_columns_of_scores_are_known_by_their_names_those_that_judge_first(
    columns: list[str], names: list[str] | None
) -> None:
    sides = [] if "responses" in columns else ["chosen", "rejected"]
    found = score_columns([*sides, *columns])
    if names is None:
        assert [(column.sources, column.judges) for column in found] == [
            (("reward_chosen", "reward_rejected"), True),
            (("chosen_tokens", "rejected_tokens"), False),
        ]
    else:
        assert [column.name for column in found] == names


def test_rows_whose_better_response_has_the_lower_score_are_listed() -> None:
    rows = scored([9, 2, 5, None, 8], [3, 8, 5, 1, "7"])
    rows = [row | {"rejected_score": None if row["rejected_score"] == "7" else row["rejected_score"]} for row in rows]
    found = found_by(Scores, rows)
    finding = by_kind(found)["score_contradicts"]
    assert (list(finding.rows), finding.severity) == ([1], "warning")
    assert finding.message == (
        "1 row has a response with a lower chosen_score/rejected_score as the better one (50.0% of 2 pairs whose "
        "scores differ)."
    )
    assert finding.example == "chosen_score: 2; rejected_score: 8"
    figures = found.metrics["scores"]["chosen_score/rejected_score"]
    assert {name: figures[name] for name in ("pairs", "agree", "against", "equal", "tau", "min", "max")} == {
        **{"pairs": 3, "agree": 1, "against": 1, "equal": 1, "tau": 0.0, "min": 1.0, "max": 9.0}
    }


def test_several_ratings_count_as_their_mean_and_labels_turn_the_pair_round() -> None:
    rows = scored([[5, 4], [1, 1], [3]], [[1], [5, 2], [2]], "ratings", label=[1.0, 1.0, 0.2])
    assert list(by_kind(found_by(Scores, rows))["score_contradicts"].rows) == [1, 2]


def test_other_columns_contradict_nothing() -> None:
    found = found_by(Scores, scored([1, 2, 3], [4, 5, 6], "tokens"))
    assert found.findings == [] and found.metrics["scores"]["chosen_tokens/rejected_tokens"]["tau"] == -1


def test_a_column_that_contradicts_most_rows_is_reversed_and_lists_none() -> None:
    rows = scored(list(range(20)), [n + (1 if n else -1) for n in range(20)])
    finding = by_kind(found_by(Scores, rows))["score_reversed"]
    assert list(finding.rows) == []
    assert finding.message == "chosen_score/rejected_score is lower for the better response in 19 of 20 pairs."


def test_rankings_are_held_against_other_columns_pair_by_pair() -> None:
    rng = random.Random(0)
    rows, expected, pairs = [], [], [0, 0, 0]
    for n in range(40):
        k = rng.choice([2, 3, 4])
        ranks = [rng.choice([None, 0, 1]) for _ in range(k)]
        ranks[0] = 0
        scores = [rng.choice([None, 1, 2, 3, 4]) for _ in range(k)]
        rows.append({"prompt": f"p{n}", "responses": [f"r{i}" for i in range(k)], "ranking": ranks, "quality": scores})
        bad = False
        for i, j in combinations(range(k), 2):
            place = [9 if (rank := ranks[each]) is None else rank for each in (i, j)]
            better, worse = (i, j) if place[0] < place[1] else (j, i)
            one, two = scores[better], scores[worse]
            if place[0] != place[1] and one is not None and two is not None:
                pairs[(one > two) - (one < two) + 1] += 1
                bad |= one < two
        expected += [n] if bad else []
    found = found_by(Scores, rows)
    figures = found.metrics["scores"]["quality"]
    assert [figures["against"], figures["equal"], figures["agree"]] == pairs
    listed = {each.kind: list(each.rows) for each in found.findings}
    assert listed.get("score_contradicts") == expected or listed.get("score_reversed") == []
    assert all(pairs) and expected


def test_correlations_are_those_of_ranks_and_opposite_columns_are_a_finding() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 30)), rng.normal(size=(2, 30))
    two = two - 2 * one
    rows = scored(one[0].tolist(), one[1].tolist(), "score", margin=np.abs(one[0] - one[1]).tolist())
    rows = [row | {"chosen_rating": two[0, n], "rejected_rating": two[1, n]} for n, row in enumerate(rows)]
    rows[3]["chosen_rating"] = None
    found = found_by(Scores, rows)
    known = [(one[side, n], two[side, n]) for n in range(30) for side in (0, 1) if (side, n) != (0, 3)]
    (correlation,) = found.metrics["score_correlations"]
    assert correlation["rho"] == pytest.approx(spearman(*zip(*known, strict=True)), abs=1e-6)
    assert correlation["n"] == 59
    assert [each.kind for each in found.findings if not each.rows].count("scores_disagree") == 1
    lead = one[0] - one[1]
    figures = found.metrics["scores"]["chosen_score/rejected_score"]
    assert figures["margin_correlation"] == pytest.approx(spearman(lead, np.abs(lead)), abs=1e-6)


def test_two_columns_of_one_order_agree() -> None:
    rows = [row | {"chosen_rating": n, "rejected_rating": -n} for n, row in enumerate(scored([*range(9)], [-1] * 9))]
    found = found_by(Scores, [row | {"rejected_score": -row["chosen_score"]} for row in rows])
    assert found.metrics["score_correlations"][0]["rho"] == pytest.approx(1) and not found.findings


def test_margins_that_fall_with_the_lead_of_the_scores_are_a_finding() -> None:
    rows = scored([n + 1 for n in range(15)], [0] * 15, margin=[20.0 - n for n in range(15)])
    assert "the smaller the lead" in by_kind(found_by(Scores, rows))["scores_disagree"].message


def test_a_lowest_score_stored_as_the_highest_is_found_by_the_other_column() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(2, 10, (2, 100))
    other = np.clip(score + rng.integers(-1, 2, score.shape), 1, 10)
    score[0, 7], other[0, 7] = 10, 1
    rows = scored(score[0].tolist(), score[1].tolist(), "overall_score")
    rows = [row | {"chosen_honesty": o, "rejected_honesty": t} for row, o, t in zip(rows, *other.tolist(), strict=True)]
    finding = by_kind(found_by(Scores, rows))["score_extreme"]
    assert list(finding.rows) == [7]
    assert finding.example.startswith("chosen_overall_score: 10;") and "chosen_honesty: 1;" in finding.example


@pytest.mark.parametrize(
    ("usual", "odd", "found"),
    [
        ([*range(1, 11)], [0.85], True),  # one rater's points in a file of shares
        ([*range(1, 11)], [0.0], False),
        ([1.0, 2.5, 4.0, 4.5, 5.0], [60, 90], True),
        ([0.1, 0.5, 0.9, 0.95], [4, 8], True),
        ([0.1, 0.5, 0.9, 0.95], [1.2, 1.4], False),  # a little above
        ([-2.0, 0.4, 3.5], [30.0], False),  # a reward model's score has no scale
    ],
)
def test_scores_on_another_scale_are_found_where_values_show_it(usual: list[Any], odd: list[Any], found: bool) -> None:
    values = np.array(usual * 10 + odd, float)
    rows, how = off_scale(values, values)
    assert np.flatnonzero(rows).tolist() == ([len(usual) * 10 + n for n in range(len(odd))] if found else [])
    assert bool(how) == found


def test_a_long_tail_is_no_second_scale() -> None:
    upvotes = np.floor(1 / np.random.default_rng(0).random(5000))
    assert not off_scale(upvotes, upvotes)[0].any()


def test_rows_on_another_scale_are_listed() -> None:
    rows = scored([8, 9, 7, 10, 0.9, 9, 8], [2, 3, 5, 6, 0.2, 4, 1])
    finding = by_kind(found_by(Scores, rows))["mixed_scales"]
    assert list(finding.rows) == [4] and "two scales are mixed" in finding.message


def test_a_response_with_another_score_in_another_row_is_found() -> None:
    rows = scored([5, 4, 5, 3], [1, 2, 2, 1])
    for row in rows:
        row["prompt"] = "p"
    rows[1]["chosen"] = rows[0]["chosen"]  # 5 there, 4 here
    rows[2]["rejected"] = rows[1]["rejected"]  # 2 in both
    rows[3]["rejected"] = rows[0]["chosen"]
    finding = by_kind(found_by(Scores, rows))["score_varies"]
    assert (list(finding.rows), finding.severity) == ([0, 1, 3], "note")
    assert finding.message.startswith("1 of 2 responses that stand in several rows don't have one chosen_score")


def test_without_scores_there_is_nothing() -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    assert found_by(Scores, rows).metrics == {"scores": {}, "score_correlations": []}
    assert found_by(Scores, [row | {"chosen_score": "high", "rejected_score": "low"} for row in rows]).findings == []
