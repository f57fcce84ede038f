import re
from xml.etree import ElementTree

import pytest

from hf_align.report.charts.counts import Counts, bar_chart, histogram_chart
from hf_align.report.charts.curves import Curve, curve_chart
from hf_align.report.charts.figure import Reference, ticks
from hf_align.report.charts.intervals import Interval, interval_chart
from hf_align.report.charts.lines import line_chart, running_mean


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
    counts = histogram_chart([0, 1], [Counts(bad, "dpo", [2])], title=bad, axes=(bad, bad), limit=Reference(0.5, bad))
    bars = bar_chart([(bad, "dpo", 2.0)], title=bad)
    for chart in (line, dots, counts, bars):
        assert bad not in chart
        figure = ElementTree.fromstring(chart)
        svg = figure.find("svg")
        assert svg is not None
        assert str(svg.get("aria-label")).startswith(bad)


def test_whiskers_stand_at_the_interval() -> None:
    chart = interval_chart([("all", [Interval("a", "dpo", 0.5, [0.0, 1.0])])], title="t")
    # The axis goes from 0 (x = 96) to 1 (x = 296).
    assert re.search(r'class="whisker" x1="96.0" x2="296.0"', chart)
    assert re.search(r'class="dot" cx="196.0"', chart)


def test_curves_stand_on_common_axes_and_say_their_points() -> None:
    curve = Curve("a<b", "reward", [(0.0, 0.0), (0.5, 1.0), (1.0, float("nan"))], [(0.0, 0.0, 0.5), (1.0, 0.5, 1.0)])
    chart = curve_chart(
        [curve],
        title="t",
        axes=("x", "y"),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal="right",
        marks=[(0.5, "n=2")],
    )
    # The plot goes from x = 44 to 326 and from y = 28 (below the marks) to 176.
    assert 'class="mean" d="M44.0,176.0L185.0,28.0"' in chart
    assert 'class="band" d="M44.0,102.0L326.0,28.0L326.0,102.0L44.0,176.0"' in chart
    assert 'class="reference" x1="44.0" y1="176.0" x2="326.0" y2="28.0"' in chart
    svg = ElementTree.fromstring(chart).find("svg")
    assert svg is not None and svg.get("aria-label") == "t. y over x. a<b: 0 0, 0.5 1"
    assert "nothing to draw" in curve_chart([Curve("a", "", [])], title="t", axes=("x", "y"))


def test_an_interval_chart_shows_its_origin_and_says_its_values() -> None:
    chart = interval_chart([("", [Interval("a", "dpo", 75, [70, 80])])], title="t", digits=0, origin=50)
    assert re.search(r'class="axis" x1="96.0"', chart), "the origin is the left end"
    assert 'aria-label="t: a 75"' in chart


def test_a_histogram_steps_up_and_down_at_the_ends_of_its_bins() -> None:
    chart = histogram_chart([0, 10, 20], [Counts("a", "dpo", [4, 2])], title="t", axes=("x", "rows"))
    outline = re.search(r'class="mean" d="M([^"]*)"', chart)
    assert outline is not None
    # The plot is 282 wide from 44, and 162 high from 14 for counts of 0 to 4.
    assert outline[1] == "44.0,176.0L44.0,14.0L185.0,14.0L185.0,95.0L326.0,95.0L326.0,176.0"
    limit = histogram_chart([0, 20], [Counts("a", "dpo", [4])], title="t", axes=("x", "y"), limit=Reference(10, "cut"))
    assert 'x1="185.0" x2="185.0"' in limit and ">cut</text>" in limit
    beyond = histogram_chart([0, 20], [Counts("a", "dpo", [4])], title="t", axes=("x", "y"), limit=Reference(30, "cut"))
    assert "cut" not in beyond
    assert "nothing to draw" in histogram_chart([0, 1], [Counts("a", "dpo", [0])], title="t", axes=("x", "y"))


def test_bars_are_as_long_as_their_counts() -> None:
    chart = bar_chart([("one", "dpo", 1200), ("two", "ipo", 300), ("none", "ipo", 0)], title="t")
    widths = [float(width) for width in re.findall(r'class="bar"[^>]* width="([\d.]+)"', chart)]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.3) and widths[2] == 0
    assert "one 1,200; two 300; none 0" in chart
    assert "nothing to draw" in bar_chart([], title="t")
