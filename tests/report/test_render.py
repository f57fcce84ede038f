"""Number formats of the pages."""

import pytest

from hf_align.report.render import duration, fixed, interval, signed, verdict


@pytest.mark.parametrize(
    ("ends", "expected"),
    [([0.1, 0.2], "more positively"), ([-0.1, 0.2], "no clear change"), ([-0.2, -0.1], "less positively")],
)
def test_verdict_follows_the_interval(ends: list[float], expected: str) -> None:
    assert expected in verdict(ends)


def test_number_formats() -> None:
    assert signed(-0.004) == "+0.00"
    assert signed(-0.126) == "\N{MINUS SIGN}0.13"
    assert [fixed(None), fixed(float("nan")), fixed(-0.5, 1)] == ["\N{EN DASH}", "\N{EN DASH}", "\N{MINUS SIGN}0.5"]
    assert interval([0.1, 0.25]) == "[+0.10, +0.25]"
    assert interval(None) == ""


def test_a_duration_in_words() -> None:
    assert [duration(seconds) for seconds in (7.6, 61, 185.2, 3725)] == ["8 s", "1 min 1 s", "3 min 5 s", "1 h 2 min"]
