"""The page of runs: their curves on common charts."""

from __future__ import annotations

import math
from pathlib import Path

from hf_align.report.runs import MOST_POINTS, MOST_RUNS, compare_runs, list_runs, render_runs, runs_charts, thinned
from hf_align.tracking import read_runs
from tests.tracking.test_compare import made


def test_a_chart_has_a_curve_for_each_run(tmp_path: Path):
    for number, name in enumerate(("<a>", "b")):
        made(tmp_path / name, config={"beta": number}, loss=[2.0, 1.0 + number, math.nan], eval_loss=[1.0])
    runs = read_runs(tmp_path)
    loss, held_out = runs_charts(runs, ["loss", "eval_loss"])
    assert loss.count('class="run-0"') == loss.count('class="run-1"') == held_out.count('class="run-1"') == 1
    page = render_runs(runs)
    assert "&lt;a&gt;" in page and "<a>" not in page and "2 runs" in page
    assert "b: 1 values are NaN or infinite" in page and page.count("<figure") == 2
    assert "<td>beta</td><td>0</td><td>1</td>" in page
    assert "<h1>1 run</h1>" in render_runs(runs[:1])


def test_charts_show_the_last_runs(tmp_path: Path):
    for number in range(MOST_RUNS + 2):
        made(tmp_path / f"run{number}", loss=[1.0])
    runs = read_runs(tmp_path)
    [chart] = runs_charts(runs, ["loss"])
    assert ">run1<" not in chart and ">run2<" in chart and f"run-{MOST_RUNS - 1}" in chart
    assert f"Charts show the last {MOST_RUNS} runs" in render_runs(runs)


def test_long_curves_are_thinned_to_means():
    points = [(float(step), float(step % 2)) for step in range(1, 4 * MOST_POINTS + 1)]
    thin = thinned([*points, (9e9, math.inf)])
    assert thin == [(float(step), 0.5) for step in range(4, 4 * MOST_POINTS + 1, 4)]
    assert thinned([]) == [] and thinned(points[:5]) == points[:5]


def test_tables_name_what_they_show(tmp_path: Path):
    made(tmp_path / "a", "reward", {"head": "mlp"}, eval_accuracy=[0.5, 0.75], **{"objective/kl": [1.0, 3.0]})
    made(tmp_path / "b", "reward", {"head": "linear"}, eval_accuracy=[0.5])
    runs = read_runs(tmp_path)
    listed = list_runs(runs)
    assert listed.columns[0] == "run" and [row[5] for row in listed.rows] == [
        *("eval_accuracy 0.75 (step 2)", "eval_accuracy 0.5 (step 1)")
    ]
    chosen = list_runs(runs, ["objective/kl"])
    assert [row[5] for row in chosen.rows] == ["3 (last, step 2)", ""]
    differing, measured = compare_runs(runs)
    assert list(differing.rows) == [["head", "mlp", "linear"]]
    assert measured.rows[0] == ["eval_accuracy", "0.75 (step 2)", "0.5 (step 1)"]
