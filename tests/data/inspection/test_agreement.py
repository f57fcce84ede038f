"""What an inspection says about people's agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hf_align.data.inspection.agreement import PeopleAgree
from hf_align.feedback import krippendorff_alpha
from tests.data.inspection.checking import by_kind, found_by


def voted(*votes: list[float], **columns: list[Any]) -> list[dict[str, Any]]:
    """A pair for each list of votes."""
    rows = [
        {"prompt": f"Prompt {n}", "chosen": f" one {n}", "rejected": f" two {n}", "votes": each}
        for n, each in enumerate(votes)
    ]
    return [row | {name: values[n] for name, values in columns.items()} for n, row in enumerate(rows)]


def test_rows_whose_votes_agree_less_than_the_threshold_are_listed() -> None:
    rows = voted([1, 1, 1], [1, 1, 0], [1, 1, 1, 1, 1, 0], [1, 0, 0.5], [1])  # 1, 1/3, 2/3, 0, nothing
    low = by_kind(found := found_by(PeopleAgree, rows))["low_agreement"]
    assert (list(low.rows), low.severity, list(low.drop)) == ([1, 2, 3], "warning", [])
    assert low.message == (
        "3 of 4 rows have an agreement below 0.7: the share of pairs of votes on a row that are the same (median 0.50)."
    )
    assert low.example.startswith("votes [1.0, 1.0, 0.0]: 'one 1' and 'two 1'")
    assert found.metrics["rows"] == 4 and found.metrics["mean"] == pytest.approx(0.5)
    # Shares 1, 2/3, 5/6 and 1/2 in bits.
    assert found.metrics["entropy"] == pytest.approx((0 + 0.9183 + 0.6500 + 1) / 4, abs=1e-4)
    assert by_kind(found_by(PeopleAgree, rows, min_agreement=0.4))["low_agreement"].rows == [1, 3]
    assert "low_agreement" not in by_kind(found_by(PeopleAgree, rows, min_agreement=0))


def test_alpha_of_votes_does_not_depend_on_which_response_stands_first() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.5
    table = np.where(rng.random((3, 200)) < 0.85, truth, ~truth).astype(float)
    sorted_rows = voted(
        *[sorted(votes, reverse=True) if sum(votes) > 1 else [1 - v for v in votes] for votes in table.T]
    )
    found = found_by(PeopleAgree, sorted_rows)
    # In the order "majority first" nearly all votes are 1, and chance would agree with that.
    as_sorted = krippendorff_alpha({n: row["votes"] for n, row in enumerate(sorted_rows)}, level="interval")
    assert found.metrics["alpha"] == pytest.approx(krippendorff_alpha(table, level="interval"), abs=0.02)
    assert as_sorted < found.metrics["alpha"] - 0.2


def test_agreement_by_annotator_and_by_group() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(60) < 0.5).astype(float)
    votes = [[t, t, t, float(rng.random() < 0.5), 1 - t] for t in truth]
    columns = {"annotators": [["anna", "ben", "eve", "carl", "dora"]] * 60, "domain": ["film", "food", "film"] * 20}
    found = found_by(PeopleAgree, voted(*votes, **columns))
    of = found.metrics["annotators"]
    assert of["anna"]["alpha"] == of["ben"]["alpha"] > of["carl"]["alpha"] > of["dora"]["alpha"]
    assert of["anna"]["values"] == 60 and next(iter(of)) == "dora"
    assert "dora (-" in by_kind(found)["annotator_at_chance"].message
    assert "anna" not in by_kind(found)["annotator_at_chance"].message
    film = found.metrics["groups"]["domain"]["film"]
    only_film = [row for row in voted(*votes, **columns) if row["domain"] == "film"]
    assert film["units"] == 40 and film["alpha"] == pytest.approx(found_by(PeopleAgree, only_film).metrics["alpha"])


def test_names_that_do_not_fit_the_votes_are_listed_and_the_last_vote_of_one_counts() -> None:
    rows = voted([1, 1, 0], [1, 0], [0, 1, 1], annotators=[["a", "b", "b"], ["a"], ["b", "a", "b"]])
    found = found_by(PeopleAgree, rows)
    assert list(by_kind(found)["annotators_unfit"].rows) == [1]
    # Row 0: a says 1, b 0; row 2: b 1, a 1; row 1: 1 and 0 by nobody known.
    assert list(by_kind(found)["low_agreement"].rows) == [0, 1]
    assert found.metrics["values"] == 6 and found.metrics["annotators"]["a"]["values"] == 2


def test_rows_of_single_annotators_are_gathered_by_their_responses_in_either_order() -> None:
    choices = {"a": "xyxyx", "b": "xyxyx", "c": "xyyxx"}  # c differs on the third and fourth pair
    rows = [
        {"prompt": f"P{n}", "chosen": f" {side}{n}", "rejected": f" {'y' if side == 'x' else 'x'}{n}", "annotator": who}
        for who, sides in choices.items()
        for n, side in enumerate(sides)
    ]
    found = found_by(PeopleAgree, [*rows, rows[0]])  # the same answer twice is one answer
    table = [[side == "x" for side in sides] for sides in choices.values()]
    low = by_kind(found)["low_agreement"]
    assert list(low.rows) == [2, 3, 7, 8, 12, 13]
    assert (found.metrics["units"], found.metrics["values"]) == (5, 15)
    # Alpha of data that are turned at random: within a few hundredths only for many units; raw agreement is exact.
    assert found.metrics["raw"] == pytest.approx((3 + 1 / 3 + 1 / 3) / 5)
    assert found.metrics["annotators"]["c"]["raw"] == pytest.approx(3 / 5) and len(table) == 3
    assert by_kind(found_by(PeopleAgree, rows[:5]))["agreement_undefined"].message.startswith(
        "Alpha is undefined: there is only one rater"
    )


def rated(*ratings: tuple[list[float], list[float]], same: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "prompt": "p" if same else f"p{n}",
            "chosen": " one" if same else f" one {n}",
            "rejected": f" two {n}",
            "chosen_ratings": one,
            "rejected_ratings": two,
        }
        for n, (one, two) in enumerate(ratings)
    ]


def test_agreement_of_ratings_is_that_of_their_pairs_on_the_order() -> None:
    rows = rated(([3, 4], [1, 0]), ([3, 1], [2, 1]), ([1, 0], [3, 4]), ([1], [0]))  # 1, .625, 1 (against the row), no
    found = found_by(PeopleAgree, rows)
    assert list(by_kind(found)["low_agreement"].rows) == [1]
    assert found.metrics["rows"] == 3 and found.metrics["mean"] == pytest.approx((1 + 0.625 + 1) / 3)


def test_a_response_in_several_pairs_is_one_unit() -> None:
    rows = rated(([3, 4], [1, 0]), ([3, 4], [2, 1]), ([3, 4], [0, 0]), same=True)
    found = found_by(PeopleAgree, rows)
    expected = krippendorff_alpha({0: [3, 4], 1: [1, 0], 2: [2, 1], 3: [0, 0]}, level="interval")
    assert found.metrics["units"] == 4 and found.metrics["alpha"] == pytest.approx(expected)


def test_rankings_by_ratings() -> None:
    row = {"prompt": "p", "responses": [" a", " b", " c"], "ratings": [[3, 4], [1, 1], [0, 2]]}
    found = found_by(PeopleAgree, [row])
    # a over b and a over c by all; b and c have one mean and no order.
    assert found.metrics["rows"] == 1 and found.metrics["mean"] == 1 and found.metrics["units"] == 3


def test_a_soft_label_says_how_often_two_people_agree() -> None:
    rows = [{"prompt": "p", "chosen": " a", "rejected": f" b{n}", "label": p} for n, p in enumerate([1, 0.9, 0.7, 0.5])]
    found = found_by(PeopleAgree, rows)
    assert list(by_kind(found)["low_agreement"].rows) == [2]
    assert found.metrics["mean"] == pytest.approx((0.82 + 0.58) / 2)
    assert "share" in found.metrics["reason"] and "alpha" not in found.metrics


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (voted([1], [0]), "no unit has two values"),
        (voted([0.5, 0.5], [0.5, 0.5, 0.5]), "all 5 values that can be compared are the same"),
        (voted([1, 0], [1]), "only one unit"),
        (voted([1], [0], annotators=[["anna"], ["anna"]]), "only one rater"),
    ],
)
def test_undefined_alpha_has_its_reason(rows: list[dict[str, Any]], reason: str) -> None:
    found = found_by(PeopleAgree, rows)
    note = by_kind(found)["agreement_undefined"]
    assert note.severity == "note" and reason in note.message and reason in found.metrics["reason"]
    assert found.metrics["alpha"] is None


@pytest.mark.parametrize("columns", [{}, {"chosen_ratings": 3.5, "rejected_ratings": 2.0}])
def test_data_of_nobody_named_has_a_reason_and_no_finding(columns: dict[str, Any]) -> None:
    found = found_by(PeopleAgree, [{"prompt": "p", "chosen": " a", "rejected": " b", **columns}])
    assert found.findings == [] and found.metrics["reason"]


def test_low_alpha_is_said_of_the_data_set() -> None:
    rng = np.random.default_rng(0)
    noise = voted(*rng.integers(0, 2, (80, 3)).astype(float).tolist(), annotators=[["a", "b", "c"]] * 80)
    low = (found := by_kind(found_by(PeopleAgree, noise)))["low_alpha"]
    assert "annotator_at_chance" not in found  # nobody stands out
    assert list(low.rows) == [] and low.message.startswith("Interval alpha is ")
    agreed = voted(*[[float(n % 2)] * 3 for n in range(80)])
    assert found_by(PeopleAgree, agreed).findings == []
