from typing import Any

from hf_align.data.inspection.contradictions import Cycles
from tests.data.inspection.checking import by_kind, found_by


def pairs(*compared: str, prompt: str = "Say something.", **columns: list[Any]) -> list[dict[str, Any]]:
    """A row for each two letters, the better response first."""
    each = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = [{"prompt": prompt, "chosen": f" {a}.", "rejected": f" {b}."} for a, b in compared]
    return [row | (each[n] if each else {}) for n, row in enumerate(rows)]


def test_every_row_of_a_circle_is_listed_and_one_dropped() -> None:
    found = found_by(Cycles, pairs("ab", "xy", "bc", "cd", "yz", "da", "xz"))
    cycle = by_kind(found)["cycle"]
    assert (list(cycle.rows), list(cycle.drop), cycle.severity) == ([0, 2, 3, 5], [5], "warning")
    assert cycle.message == (
        "4 rows have preferences that go round in a circle, in 1 group of 4 responses; without 1 of them no "
        "circle is left (the fewest possible)."
    )
    assert cycle.example == "to the prompt 'Say something.', 'a.' > 'b.' > 'c.' > 'd.' > 'a.'"
    assert found.metrics == {"cycles": {"groups": 1, "rows": 4, "to_drop": 1, "fewest": True, "sizes": [4]}}


def test_a_circle_is_one_prompts_affair() -> None:
    rows = [*pairs("ab", "bc"), *pairs("ca", prompt="Say another thing.")]
    assert found_by(Cycles, rows).findings == []


def test_opposite_preferences_are_no_circle() -> None:
    assert found_by(Cycles, pairs("ab", "ba")).findings == []
    assert found_by(Cycles, pairs("ab", "ba", "bc", "ca")).findings == []  # without the contradicted pair it isn't one


def test_the_row_with_the_smallest_margin_is_dropped() -> None:
    rows = pairs("ab", "bc", "ca", "ac", margin=[3.0, 1.0, 2.0, 1.0])
    assert by_kind(found_by(Cycles, rows[:3]))["cycle"].drop == [1]


def test_soft_labels_turn_a_pair_round_and_ties_take_no_part() -> None:
    turned = pairs("ab", "bc", "ac", label=[0.9, 1.0, 0.2])
    assert by_kind(found_by(Cycles, turned))["cycle"].rows == [0, 1, 2]
    assert found_by(Cycles, pairs("ab", "bc", "ca", label=[1.0, 0.5, 1.0])).findings == []


def test_rankings_and_the_unranked_are_compared_with_each_other() -> None:
    rows = [
        {"prompt": "p", "responses": ["a", "b", "c"], "ranking": [0, 1, 2]},
        {"prompt": "p", "responses": ["d", "a", "c"], "ranking": [1, None, 0]},  # c > d > a, c > a: opposes the first
        {"prompt": "p", "responses": ["d", "b", "e"], "ranking": [0, 0, None]},
        {"prompt": "p", "responses": ["b", "d"], "ranking": [0, 1]},
    ]
    # c > a and a > c are opposite; what is left is a > b > d > a, whose b > d row 3 says.
    cycle = by_kind(found_by(Cycles, rows))["cycle"]
    assert list(cycle.rows) == [0, 1, 3] and len(cycle.drop) == 1


def test_rows_that_cannot_be_read_are_passed_over() -> None:
    rows = pairs("ab", "bc", "ca")
    rows[1]["rejected"] = ""
    assert found_by(Cycles, rows).findings == []
    assert found_by(Cycles, [rows[1]]).findings == []
