import re
from xml.etree import ElementTree

import pytest

from hf_align.report.charts import Interval, Reference, interval_chart, line_chart, running_mean, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.41, 0.69, [0.4, 0.5, 0.6, 0.7]),
        (-3.0, 12.0, [-5.0, 0.0, 5.0, 10.0, 15.0]),
        (2.0, 2.0, [1.5, 1.75, 2.0, 2.25, 2.5]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 4) == pytest.approx(expected)


def test_running_mean_by_hand() -> None:
    assert running_mean([1.0, 4.0, 7.0, 2.0]) == pytest.approx([2.5, 4.0, 13 / 3, 4.5])


def test_a_line_ends_where_its_last_value_is() -> None:
    chart = line_chart([(0, 0.0), (10, 1.0)], title="accuracy", color="dpo", y_range=(0.0, 1.0))
    raw = re.search(r'class="raw" d="M([^"]*)"', chart)
    assert raw is not None
    # From the lower left corner of the plot (44, 176) to its upper right one (326, 14).
    assert raw[1] == "44.0,176.0L326.0,14.0"


def test_gaps_in_the_log_are_left_out() -> None:
    with_gap = line_chart([(0, 0.0), (5, float("nan")), (10, 1.0)], title="t", color="dpo")
    assert with_gap == line_chart([(0, 0.0), (10, 1.0)], title="t", color="dpo")
    assert "nothing logged" in line_chart([], title="t", color="dpo")


def test_charts_are_well_formed_and_escape_labels() -> None:
    bad = "<b>&"
    line = line_chart([(1, 2.0), (2, 3.0)], title=bad, color="dpo", reference=Reference(2.5, bad), held_out=2.0)
    values = [Interval(bad, "dpo", -0.5, [-0.6, -0.4]), Interval("x", "ipo", 0.2, None)]
    dots = interval_chart([(bad, values)], title=bad)
    for chart in (line, dots):
        assert bad not in chart
        figure = ElementTree.fromstring(chart)
        svg = figure.find("svg")
        assert svg is not None
        assert svg.get("aria-label") == bad


def test_whiskers_stand_at_the_interval() -> None:
    chart = interval_chart([("all", [Interval("a", "dpo", 0.5, [0.0, 1.0])])], title="t")
    # The axis goes from 0 (x = 96) to 1 (x = 296).
    assert re.search(r'class="whisker" x1="96.0" x2="296.0"', chart)
    assert re.search(r'class="dot" cx="196.0"', chart)
