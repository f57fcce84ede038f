import math
import random
from itertools import permutations

import pytest
from datasets import Dataset

from hf_align.data import ComparisonReport, RatingReport, comparisons_to_pairs, rated_pair, ratings_to_pairs
from hf_align.errors import UserError

COMPARISONS = [
    {"prompt": "p", "response_a": "x", "response_b": "y", "preference": 1, "who": "ann"},
    {"prompt": "p", "response_a": "x", "response_b": "z", "preference": 0.0, "who": "bob"},
    {"prompt": "q", "response_a": "x", "response_b": "y", "preference": 0.5, "who": "bob"},
    {"prompt": "q", "response_a": "x", "response_b": "x", "preference": 1, "who": "ann"},
]


@pytest.mark.parametrize("as_dataset", [False, True])
def test_comparisons_with_ties_dropped(as_dataset, caplog):
    rows = Dataset.from_list(COMPARISONS) if as_dataset else COMPARISONS
    with caplog.at_level("INFO", logger="hf_align"):
        pairs, report = comparisons_to_pairs(rows)
    assert pairs.to_list() == [
        {"prompt": "p", "chosen": "x", "rejected": "y", "who": "ann"},
        {"prompt": "p", "chosen": "z", "rejected": "x", "who": "bob"},
    ]
    assert report == ComparisonReport(rows=4, pairs=2, ties_dropped=1, ties_kept=0, identical=1)
    assert "ties_dropped 1" in caplog.text


def test_a_kept_tie_is_both_orders_with_half_the_weight():
    pairs, report = comparisons_to_pairs(COMPARISONS, ties="keep")
    assert [(r["prompt"], r["chosen"], r["rejected"], r["weight"]) for r in pairs.to_list()] == [
        ("p", "x", "y", 1.0),
        ("p", "z", "x", 1.0),
        ("q", "x", "y", 0.5),
        ("q", "y", "x", 0.5),
    ]
    assert report == ComparisonReport(rows=4, pairs=4, ties_dropped=0, ties_kept=1, identical=1)


def test_kept_ties_give_the_loss_of_an_even_chance():
    pairs, _ = comparisons_to_pairs(COMPARISONS[2:3], ties="keep")
    reward = {"x": 1.3, "y": -0.4}
    loss = sum(
        -row["weight"] * math.log(1 / (1 + math.exp(reward[row["rejected"]] - reward[row["chosen"]])))
        for row in pairs.to_list()
    )
    win = 1 / (1 + math.exp(reward["y"] - reward["x"]))
    assert loss == pytest.approx(-0.5 * math.log(win) - 0.5 * math.log(1 - win))


def test_conversations_are_passed_on():
    prompt, a, b = ([{"role": role, "content": role}] for role in ("user", "assistant", "system"))
    pairs, _ = comparisons_to_pairs([{"prompt": prompt, "response_a": a, "response_b": b, "preference": 0}])
    assert pairs[0] == {"prompt": prompt, "chosen": b, "rejected": a}
    rated = [{"prompt": prompt, "response": a, "rating": 1}, {"prompt": prompt, "response": b, "rating": 3}]
    pairs, _ = ratings_to_pairs(rated, min_gap=0)
    assert (pairs[0]["prompt"], pairs[0]["chosen"], pairs[0]["rejected"]) == (prompt, b, a)


def test_margin_is_carried_unless_ties_are_kept():
    rows = [{**COMPARISONS[0], "margin": 2.0}]
    assert comparisons_to_pairs(rows)[0]["margin"][:] == [2.0]
    with pytest.raises(UserError, match="row 0 has a column 'margin'"):
        comparisons_to_pairs(rows, ties="keep")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preference": 0.7}, "row 1: preference must be 0, 0.5 or 1, not 0.7"),
        ({"preference": "a"}, "row 1: preference must be 0, 0.5 or 1, not 'a'"),
        ({"preference": True}, "row 1: preference must be"),
        ({"preference": math.nan}, "row 1: preference must be"),
        ({"preference": None}, "row 1 has no 'preference'"),
        ({"response_b": None}, "row 1 has no 'response_b'"),
        ({"chosen": "x"}, "row 1 has a column 'chosen'"),
    ],
)
def test_bad_comparisons_are_refused_by_row(change, message):
    with pytest.raises(UserError, match=message):
        comparisons_to_pairs([COMPARISONS[0], {**COMPARISONS[1], **change}])


def test_unknown_ties_are_refused():
    with pytest.raises(UserError, match="ties must be"):
        comparisons_to_pairs(COMPARISONS, ties="maybe")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("min_gap", [0, 0.5, 1.25])
def test_ratings_to_pairs_against_brute_force(seed, min_gap):
    rng = random.Random(seed)
    rows = [
        {
            "prompt": rng.choice("pqr"),
            "response": rng.choice("abcdefgh"),
            "rating": [rng.randint(1, 5) for _ in range(rng.randint(1, 4))]
            if rng.random() < 0.5
            else rng.randint(1, 5),
        }
        for _ in range(rng.randint(1, 25))
    ]

    def votes(row):
        return row["rating"] if isinstance(row["rating"], list) else [row["rating"]]

    def gap(a, b):
        return sum(votes(a)) / len(votes(a)) - sum(votes(b)) / len(votes(b))

    expected = sorted(
        (
            a["prompt"],
            a["response"],
            b["response"],
            round(gap(a, b), 6),
            [*map(float, votes(a))],
            [*map(float, votes(b))],
        )
        for a, b in permutations(rows, 2)
        if a["prompt"] == b["prompt"] and a["response"] != b["response"] and gap(a, b) > min_gap + 1e-9
    )
    pairs, report = ratings_to_pairs(rows, min_gap=min_gap)
    actual = sorted(
        (r["prompt"], r["chosen"], r["rejected"], round(r["margin"], 6), r["chosen_ratings"], r["rejected_ratings"])
        for r in pairs.to_list()
    )
    assert actual == expected
    per_prompt = [sum(row["prompt"] == prompt for row in rows) for prompt in {row["prompt"] for row in rows}]
    assert report.rows == len(rows) and report.prompts == len(per_prompt) and report.pairs == len(pairs)
    assert report.pairs + report.below_gap + report.identical == sum(n * (n - 1) // 2 for n in per_prompt)
    assert report.single_response == per_prompt.count(1)


def test_the_gap_is_exceeded_not_reached():
    rows = [
        {"prompt": "p", "response": text, "rating": rating} for text, rating in (("a", 2.8), ("b", 2.3), ("c", 2.2))
    ]
    pairs, report = ratings_to_pairs(Dataset.from_list(rows), min_gap=0.5)
    assert pairs.to_list() == [
        {
            "prompt": "p",
            "chosen": "a",
            "rejected": "c",
            "margin": 0.6,
            "chosen_ratings": [2.8],
            "rejected_ratings": [2.2],
        }
    ]
    assert report == RatingReport(rows=3, prompts=1, pairs=1, below_gap=2, identical=0, single_response=0)


def test_rows_that_are_no_mappings_are_refused():
    with pytest.raises(UserError, match="row 0 is str, not a mapping"):
        ratings_to_pairs("rows", min_gap=0)  # pyright: ignore[reportArgumentType]


def test_no_pairs_still_has_the_columns():
    pairs, report = ratings_to_pairs([], min_gap=1)
    assert pairs.column_names == ["prompt", "chosen", "rejected", "margin", "chosen_ratings", "rejected_ratings"]
    assert report == RatingReport(0, 0, 0, 0, 0, 0)
    assert comparisons_to_pairs([])[0].column_names == ["prompt", "chosen", "rejected"]


def test_rated_pair_puts_the_higher_mean_first():
    assert rated_pair("p", ("a", [1, 2]), ("b", [4])) == {
        "prompt": "p",
        "chosen": "b",
        "rejected": "a",
        "margin": 2.5,
        "chosen_ratings": [4],
        "rejected_ratings": [1, 2],
    }


@pytest.mark.parametrize("rating", ["5", [], [1, "2"], math.nan, [math.inf], {"a": 1}, 1e39, [10**400]])
def test_bad_ratings_are_refused_by_row(rating):
    rows = [{"prompt": "p", "response": "a", "rating": 1}, {"prompt": "p", "response": "b", "rating": rating}]
    with pytest.raises(UserError, match="row 1: rating must be a finite number or a list of finite numbers"):
        ratings_to_pairs(rows, min_gap=0)


@pytest.mark.parametrize("min_gap", [-0.1, math.nan, math.inf, 10**400])
def test_bad_min_gap_is_refused(min_gap):
    with pytest.raises(UserError, match="min_gap"):
        ratings_to_pairs([], min_gap=min_gap)
