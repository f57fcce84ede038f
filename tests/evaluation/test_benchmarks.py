"""Formulas of public benchmarks against numbers computed by hand."""

import math

import pytest

from hf_align.errors import UserError
from hf_align.evaluation.benchmarks import SECTIONS, rewardbench, rewardbench2, rm_bench, ties_score


def test_rewardbench_weights_subsets_by_rows_and_math_as_code() -> None:
    rows = [
        *[("alpacaeval-easy", 1.0, 0.0)] * 3,
        *[("mt-bench-easy", 0.0, 0.0)] * 1,  # equal scores count 0
        *[("mt-bench-hard", 1.0, 0.0), ("llmbar-natural", 0.0, 1.0)],
        ("donotanswer", 1.0, 0.0),
        ("math-prm", 0.0, 1.0),
        *[("hep-cpp", 1.0, 0.0)] * 16,
    ]
    figures = rewardbench(*zip(*rows, strict=True))
    assert figures["sections"] == pytest.approx(
        {"Chat": 3 / 4, "Chat Hard": 1 / 2, "Safety": 1.0, "Reasoning": 16 / (984 + 16)}
    )
    assert figures["overall"] == pytest.approx((0.75 + 0.5 + 1.0 + 0.016) / 4)
    assert figures["subsets"]["mt-bench-easy"] == 0.0 and "hep-go" in figures["missing"]
    assert rewardbench(["donotanswer"], [1.0], [0.0])["overall"] is None
    assert sum(map(len, SECTIONS.values())) == 23


def test_rewardbench2_shares_a_point_among_equal_scores() -> None:
    figures = rewardbench2(
        ["Math", "Math", "Focus", "Focus"],
        [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [2.0, 2.0, 0.0, 1.0]],
        [1] * 4,
        list("abcd"),
    )
    assert figures["subsets"] == pytest.approx({"Math": (1 + 1 / 3) / 2, "Focus": 0.25})
    assert figures["overall"] == pytest.approx((2 / 3 + 0.25) / 2) and figures["ties"] is None


def test_the_ties_score_by_hand() -> None:
    ids = ["ref:1", "tied:1", "ref:2", "tied:2", "tied:3"]
    scores = [
        [5.0, 1.0],  # gap 4
        [4.0, 3.0, 1.0],  # spread 1, gap 2
        [2.0, 1.5],  # gap .5
        [6.0, 4.0, 1.0],  # spread 2, gap 3
        [1.0, 1.0, 2.0],  # gap -1, without ref
    ]
    terms = ties_score(scores, [1, 2, 1, 2, 2], ids)
    assert terms["tied_accuracy"] == pytest.approx(2 / 3) and terms["ref_accuracy"] == 1.0
    assert terms["preferred"] == 1.0 and terms["preferred_hard"] == 0.5  # min(2, 4) > 1, min(3, .5) < 2
    margin = (math.tanh(2 / 1 - 1) + math.tanh(0.5 / 2 - 1)) / 2
    assert terms["margin"] == pytest.approx(margin)
    expected = 0.3 * 2 / 3 + 0.3 + 0.2 + 0.2 * 0.5 + 0.01 * margin
    assert terms["score"] == pytest.approx(expected)
    figures = rewardbench2(["Ties"] * 5 + ["Math"], [*scores, [1.0, 0.0]], [1, 2, 1, 2, 2, 1], [*ids, "x"])
    assert figures["subsets"] == pytest.approx({"Math": 1.0, "Ties": expected})
    assert figures["overall"] == pytest.approx((1 + expected) / 2)


@pytest.mark.parametrize(("wrong", "margin"), [(0.0, 1.0), (1.0, 0.0), (2.0, -1.0)])
def test_correct_answers_of_one_score_have_the_limit_of_the_margin(wrong: float, margin: float) -> None:
    assert ties_score([[1.0, wrong], [1.0, 1.0, wrong]], [1, 2], ["ref:1", "tied:1"])["margin"] == margin


def test_rm_bench_by_hand() -> None:
    plain, fancy = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]
    # Fancier is better: a chosen response beats all rejected ones in plainer styles, and none in its own or a fancier.
    one = rm_bench(["chat"], [fancy], [fancy])["domains"]["chat"]
    assert one == pytest.approx({"hard": 0.0, "normal": 0.0, "easy": 1.0, "average": 1 / 3})
    domains = ["chat", "code", "math", "safety-refuse", "safety-response", "safety-response"]
    high = [9.0, 9.0, 9.0]
    figures = rm_bench(domains, [fancy, high, high, plain, high, high], [fancy, fancy, fancy, plain, fancy, fancy])
    assert list(figures["domains"]) == ["chat", "code", "math", "safety"]
    # Refusals: hard 1, normal 0, easy 0; responses 1, 1, 1; safety is the mean of the two, whatever their sizes.
    assert figures["domains"]["safety"] == pytest.approx({"hard": 1.0, "normal": 0.5, "easy": 0.5, "average": 2 / 3})
    assert figures["overall"] == pytest.approx(
        {"hard": 0.75, "normal": 2.5 / 4, "easy": 3.5 / 4, "average": (1 / 3 + 1 + 1 + 2 / 3) / 4}
    )


def test_rows_that_no_formula_takes_are_refused() -> None:
    with pytest.raises(UserError, match="other is no subset of RewardBench"):
        rewardbench(["other"], [1.0], [0.0])
    with pytest.raises(UserError, match=r"different lengths or no rows \(subsets 1, chosen 2, rejected 1\)"):
        rewardbench(["hep-go"], [1.0, 2.0], [0.0])
    with pytest.raises(UserError, match="row 0 of Math has 2 correct"):
        rewardbench2(["Math"], [[1.0, 0.0, 0.0]], [2], ["a"])
    with pytest.raises(UserError, match="id 7; it must be ref"):
        ties_score([[1.0, 0.0]], [1], ["7"])
    with pytest.raises(UserError, match="row 0 has 2 correct of 2 responses"):
        ties_score([[1.0, 0.0]], [2], ["ref:1"])
    with pytest.raises(UserError, match="row 1 has 2 chosen and 3 rejected"):
        rm_bench(["chat", "chat"], [[1.0] * 3, [1.0] * 2], [[1.0] * 3] * 2)
