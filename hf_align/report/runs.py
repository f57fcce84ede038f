"""Recorded runs: as a table, side by side, and as a page with their curves on common charts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from hf_align.algorithms import ALGORITHMS
from hf_align.report.charts.curves import Curve, curve_chart
from hf_align.report.render import duration, render_page
from hf_align.report.sections import Table
from hf_align.tracking import Run
from hf_align.tracking.compare import Figure, course, differences, figure_of, headline, labels, seconds_of

MOST_RUNS = 8
"""Runs on one chart."""
MOST_POINTS = 300
"""Points of a curve that are drawn: of more, means of neighbours."""


def list_runs(runs: Sequence[Run], metrics: Sequence[str] = ()) -> Table:
    """A row for each run: algorithm, status, steps, start, metrics, base and data.

    Args:
        runs: The runs.
        metrics: Columns of these metrics. Default: one with the metric that sums each run up.
    """
    columns = ["run", "algorithm", "status", "steps", "started", *(metrics or ["result"]), "base", "data"]
    rows = [
        [
            label,
            run.algorithm,
            run.status,
            f"{run.steps:,}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)),
            *([shown(figure_of(run, name)) for name in metrics] or [_result(run)]),
            _named(run.base.get("name"), run.base.get("fingerprint")),
            _named(None, (run.data.get("train") or {}).get("fingerprint")),
        ]
        for label, run in zip(labels(runs), runs, strict=True)
    ]
    return Table(columns, rows)


def shown(figure: Figure) -> str:
    """A figure with its step; "last" where it isn't the best value."""
    if figure.point is None:
        return ""
    stage = f"{figure.point.stage} " if figure.point.stage else ""
    which = "" if figure.is_best else "last, "
    return f"{figure.point.value:.4g} ({which}{stage}step {figure.point.step})"


def _result(run: Run) -> str:
    figure = headline(run)
    return "" if figure is None else f"{figure.name} {shown(figure)}"


def _named(name: Any, fingerprint: Any) -> str:
    """The end of a name, and of a fingerprint the beginning: long enough to tell."""
    short = str(fingerprint)[:8] if fingerprint else ""
    return " ".join(part for part in (str(name).rstrip("/").rpartition("/")[2] if name else "", short) if part)


def compare_runs(runs: Sequence[Run], metrics: Sequence[str] = ()) -> list[Table]:
    """What runs differ in, and their metrics, each with a column for each run."""
    names = labels(runs)
    differing = [[name, *map(_text, values)] for name, values in differences(runs).items()]
    measured = [[name, *(shown(figure_of(run, name)) for run in runs)] for name in metrics or metrics_of(runs)]
    measured.append(["training time", *(duration(s) if math.isfinite(s := seconds_of(run)) else "" for run in runs)])
    return [Table(["differs", *names], differing), Table(["metric: best value", *names], measured)]


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """Metrics worth comparing: the curves of the runs' algorithms, with their held-out values, and their results."""
    found: dict[str, None] = {}
    for run in runs:
        curves = ALGORITHMS.builtin[run.algorithm].curves if run.algorithm in ALGORITHMS.builtin else ()
        first = headline(run)
        for name in (*([first.name] if first else ()), *(name for name, _ in curves), "loss"):
            found |= {each: None for each in (name, f"eval_{name}") if run.metrics(each)}
    return list(found)


def runs_charts(runs: Sequence[Run], metrics: Sequence[str] = ()) -> list[Markup]:
    """A chart for each metric, with a curve for each of the last `MOST_RUNS` runs that measured it."""
    named = list(zip(labels(runs), runs, strict=True))[-MOST_RUNS:]
    charts = []
    for name in metrics or metrics_of(runs):
        curves = [
            Curve(label, f"run-{number}", thinned(course(run, name)), dots=len(run.metrics(name)) < 30)
            for number, (label, run) in enumerate(named)
        ]
        charts.append(curve_chart([each for each in curves if each.points], title=name, axes=("step", name)))
    return charts


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` finite points: means of as many neighbours as it takes, at the last one's step."""
    finite = [point for point in points if math.isfinite(point[1])]
    size = -(-len(finite) // MOST_POINTS) or 1
    groups = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def render_runs(runs: Sequence[Run], metrics: Sequence[str] = ()) -> str:
    """Render the page: the table, the curves and what the runs differ in.

    Returns:
        HTML; names are escaped.
    """
    lost = {
        label: sum(not math.isfinite(point.value) for name in run.names for point in run.metrics(name))
        for label, run in zip(labels(runs), runs, strict=True)
    }
    return render_page(
        "runs.html.j2",
        runs=len(runs),
        drawn=min(len(runs), MOST_RUNS),
        listed=list_runs(runs, metrics),
        charts=runs_charts(runs, metrics),
        tables=compare_runs(runs, metrics) if len(runs) > 1 else [],
        lost={label: count for label, count in lost.items() if count},
        most=MOST_POINTS,
    )
