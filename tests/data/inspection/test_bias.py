import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr

from hf_align.data.inspection.bias import Bias, holm, sign_tests
from tests.data.inspection.checking import by_kind, found_by

WORDS = "red blue green house tree river stone cloud bread water light night".split()


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def plain(rng: random.Random, count: int, prompts: int | None = None) -> list[dict[str, Any]]:
    """Pairs in which nothing tells which response is the better one."""
    return [
        {
            "prompt": f"Question {n if prompts is None else n % prompts}?",
            "chosen": f"{text(rng, rng.randint(5, 15))} {n}",
            "rejected": f"{text(rng, rng.randint(5, 15))} {n}b",
        }
        for n in range(count)
    ]


def test_pairs_in_which_nothing_tells_have_no_finding() -> None:
    assert found_by(Bias, plain(random.Random(0), 400)).findings == []


@pytest.mark.parametrize("which", ["longer", "shorter"])
def test_length_that_goes_with_being_better_is_found_with_its_interval(which: str) -> None:
    rng = random.Random(1)
    rows = plain(rng, 300)
    for n, row in enumerate(rows):
        if n % 3 and (len(row["chosen"]) < len(row["rejected"])) == (which == "longer"):
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    found = found_by(Bias, rows)
    length = found.metrics["length"]
    unequal = [row for row in rows if len(row["chosen"]) != len(row["rejected"])]
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in unequal)
    assert (length["pairs"], length["longer_better"]) == (len(unequal), pytest.approx(longer / len(unequal)))
    exact = binomtest(longer, len(unequal)).proportion_ci(method="wilson")
    assert length["interval"] == pytest.approx([exact.low, exact.high], abs=0.01)
    assert sum(each["pairs"] for each in length["by_ratio"]) == len(unequal)
    assert sum(map(sum, length["lengths"]["counts"])) == 600 and sum(length["differences"]["counts"][0]) == 300
    finding = by_kind(found)["length_bias"]
    assert finding.message.startswith(f"The {which} response is the better one in 8") and not finding.rows


def test_pairs_of_few_prompts_make_a_wider_interval_than_as_many_of_their_own() -> None:
    def width(prompts: int) -> float:
        rows = plain(random.Random(2), 400, prompts)
        for n, row in enumerate(rows):  # each prompt has its own taste
            if (len(row["chosen"]) > len(row["rejected"])) != (n % prompts % 2 == 0):
                row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        low, high = found_by(Bias, rows).metrics["length"]["interval"]
        return high - low

    assert width(20) > 3 * width(400)


def test_with_few_prompts_rows_are_drawn() -> None:
    assert found_by(Bias, plain(random.Random(0), 40, 9)).metrics["drawn"] == "rows"
    assert found_by(Bias, plain(random.Random(0), 40, 10)).metrics["drawn"] == "prompts"


def test_margins_are_correlated_with_the_difference_of_lengths() -> None:
    rng = random.Random(3)
    rows: list[dict[str, Any]] = [
        row | {"margin": rng.random() + max(0, len(row["chosen"]) - len(row["rejected"])) / 30}
        for row in plain(rng, 80)
    ]
    correlation = found_by(Bias, rows).metrics["length"]["margin_correlation"]
    expected: Any = spearmanr([len(r["chosen"]) - len(r["rejected"]) for r in rows], [r["margin"] for r in rows])
    assert correlation["rho"] == pytest.approx(expected.statistic, abs=1e-4)
    assert -1 < correlation["interval"][0] < correlation["rho"] < correlation["interval"][1] < 1
    assert found_by(Bias, plain(rng, 20)).metrics["length"]["margin_correlation"] is None


def test_a_style_that_only_better_responses_have_is_found_by_mcnemars_test() -> None:
    rows = plain(random.Random(4), 200)
    for n, row in enumerate(rows):
        if n % 5 == 0:
            row["chosen"] += "\n- one\n- two"
        if n % 50 == 1:
            row["rejected"] += "\n- one\n- two"
    found = found_by(Bias, rows)
    lists = found.metrics["style"]["bulleted lists"]
    assert lists == {"better": 0.2, "worse": 0.02, "p": pytest.approx(binomtest(40, 44).pvalue), "differs": True}
    assert "bulleted lists (20% and 2%)" in by_kind(found)["style"].message
    assert [name for name, each in found.metrics["style"].items() if each["differs"]] == ["bulleted lists"]


def test_first_words_that_give_the_better_response_away_are_found() -> None:
    rows = plain(random.Random(5), 300)
    for n, row in enumerate(rows[:40]):
        row["rejected" if n else "chosen"] = f"I'm sorry, but {text(random.Random(n), 9)}"
    for n, row in enumerate(rows[100:160]):  # as often on either side
        row["chosen" if n % 2 else "rejected"] = f"Of course! {text(random.Random(n), 9)}"
    for row in rows[200:250]:  # on both sides
        row["chosen"], row["rejected"] = (f"Well, yes {row[side]}" for side in ("chosen", "rejected"))
    found = found_by(Bias, rows)
    assert by_kind(found)["opening"].message == (
        'First words give away which response is the better one: "i\'m sorry": better in 2% of 40.'
    )
    (telling,) = found.metrics["openings"]["telling"]
    assert telling["pairs"] == 40 and telling["better"] == pytest.approx(1 / 40) and telling["row"] == 0


def test_soft_labels_turn_pairs_round_ties_are_left_out_and_of_rankings_best_and_worst_compared() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "chosen": "longer text", "rejected": "text", "label": label} for label in (1.0, 0.3, 0.2, 0.5)
    ]
    length = found_by(Bias, rows).metrics["length"]
    assert (length["pairs"], length["longer_better"]) == (3, pytest.approx(1 / 3))
    ranked = [{"prompt": "p", "responses": ["a", "bbbb", "cc"], "ranking": [1, 0, None]}]
    assert found_by(Bias, ranked).metrics["length"]["mean_characters"] == {"better": 4.0, "worse": 2.0}
    tied = [{"prompt": "p", "responses": ["a", "b"], "ranking": [0, 0]}]
    assert found_by(Bias, tied).metrics == {"pairs_compared": 0}


def test_sign_tests_are_binomial_tests_of_the_signs_of_each_units_sum() -> None:
    rng = np.random.default_rng(0)
    lead, unit, group = rng.integers(-1, 2, 300), rng.integers(0, 40, 300), rng.integers(0, 5, 300)
    lead[group == 4] = 0
    expected = []
    for each in range(5):
        sums = [lead[(group == each) & (unit == one)].sum() for one in range(40)]
        above, below = sum(s > 0 for s in sums), sum(s < 0 for s in sums)
        expected.append(binomtest(above, above + below).pvalue if above + below else 1.0)
    assert sign_tests(lead, unit, group) == pytest.approx(expected)
    assert sign_tests(lead[group == 0], unit[group == 0]) == pytest.approx(expected[:1])


def test_holms_rule_is_bonferronis_for_the_smallest_p_and_weaker_for_the_next() -> None:
    rng = random.Random(0)
    for _ in range(200):
        p = [rng.choice([0.001, 0.01, 0.02, 0.04, 0.2]) * rng.random() for _ in range(4)]
        ordered = sorted(p)
        passed = next((n for n in range(4) if ordered[n] * (4 - n) > 0.05), 4)
        assert Counter(holm(p))[True] == passed and all(
            held == (each in ordered[:passed]) for held, each in zip(holm(p), p, strict=True)
        )
