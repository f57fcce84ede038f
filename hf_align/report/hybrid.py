"""A hybrid run as a page: curves over all of its stages, with marks where they change, and what was handed over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.report.charts.curves import Curve, curve_chart
from hf_align.report.figures import decimal
from hf_align.report.render import render_page

Content = Mapping[str, Any]
Histories = Mapping[int, Sequence[Mapping[str, Any]]]
COLUMNS = ("stage", "steps", "ended by", "starts from", "trains", "reference", "optimizer", "KL from the start (nats)")
COLORS = ("dpo", "ppo", "ipo", "reward", "human")
"""CSS classes of the stages' curves, in turn."""


def render_hybrid(content: Content, histories: Histories) -> str:
    """Render the page.

    Args:
        content: Content of hybrid.json.
        histories: What each stage's trainer logged, by the stage's number.

    Returns:
        HTML; names are escaped.
    """
    stages = [each for each in content["stages"] if each["status"] == "done"]
    names = " \N{RIGHTWARDS ARROW} ".join(each["algorithm"] for each in stages)
    return render_page(
        "hybrid.html.j2",
        title=names,
        model=content["settings"]["model_name"],
        seed=content["settings"]["seed"],
        left_out=content.get("left_out", []),
        budget=content["settings"].get("kl_budget"),
        charts=hybrid_charts(stages, histories),
        columns=COLUMNS,
        rows=[_row(each) for each in stages],
        metrics=("stage", "metric", "value"),
        evaluations=[
            [_name(each), name.removeprefix("eval_"), decimal(value)]
            for each in stages
            for name, value in each["evaluation"].items()
            if isinstance(value, int | float)
        ],
    )


def _name(stage: Content) -> str:
    return f"{stage['number']} {stage['algorithm']}"


def _row(stage: Content) -> list[str]:
    words = stage["hand_over"]
    kl = [stage.get("kl_at_start"), stage.get("kl_at_end")]
    return [
        _name(stage),
        f"{stage['steps']} of {stage['of_steps']}",
        stage["ended"],
        *(words["policy"], words["trains"], words.get("reference", "none"), words["optimizer"]),
        " to ".join(decimal(each) for each in kl if each is not None),
    ]


def hybrid_charts(stages: Sequence[Content], histories: Histories) -> list[Markup]:
    """A chart for each logged value that some stage's algorithm shows, over the steps of the whole run."""
    ends = [0]
    for stage in stages:
        ends.append(ends[-1] + stage["steps"])
    cuts = [float(end) for end in ends[1:-1]]
    marks = [
        (float(begin + end) / 2, stage["algorithm"]) for stage, begin, end in zip(stages, ends, ends[1:], strict=False)
    ]
    titles: dict[str, str] = {}
    for stage in stages:
        titles.update((name, title) for name, title in _curves_of(stage["algorithm"]) if name not in titles)
    charts = []
    for name, title in titles.items():
        curves = [
            _curve(stage, _points(histories.get(stage["number"], ()), name, begin), place)
            for place, (stage, begin) in enumerate(zip(stages, ends, strict=False))
        ]
        curves = [each for each in curves if each.points]
        if curves:
            charts.append(_chart(curves, title, title, ends, cuts, marks))
    kl = [_kl_points(stage, begin) for stage, begin in zip(stages, ends, strict=False)]
    if any(kl):
        curves = [
            _curve(stage, points, place) for place, (stage, points) in enumerate(zip(stages, kl, strict=True)) if points
        ]
        charts.append(_chart(curves, "KL from the start", "nats a response", ends, cuts, marks))
    return charts


def _chart(
    curves: Sequence[Curve], title: str, unit: str, ends: Sequence[int], cuts: Sequence[float], marks: Any
) -> Markup:
    return curve_chart(
        curves, title=title, axes=("step", unit), x_range=(0.0, float(max(ends[-1], 1))), marks=marks, cuts=cuts
    )


def _curves_of(algorithm: str) -> Sequence[tuple[str, str]]:
    """The curves of an algorithm; the loss of one that is no longer installed."""
    try:
        return ALGORITHMS[algorithm].curves or (("loss", "loss"),)
    except (KeyError, UserError):
        return (("loss", "loss"),)


def _curve(stage: Content, points: Sequence[tuple[float, float]], place: int) -> Curve:
    return Curve(_name(stage), COLORS[place % len(COLORS)], points, dots=len(points) <= 30)


def _points(history: Sequence[Mapping[str, Any]], name: str, begin: int) -> list[tuple[float, float]]:
    """Steps of the run, and values."""
    values = [(entry["step"], entry[name]) for entry in history if name in entry and "step" in entry]
    return [(float(begin + step), float(value)) for step, value in values if value is not None and math.isfinite(value)]


def _kl_points(stage: Content, begin: int) -> list[tuple[float, float]]:
    """The measured KL from the start: at the stage's start, in between and at its end."""
    points = [] if stage.get("kl_at_start") is None else [(float(begin), float(stage["kl_at_start"]))]
    points += [(float(begin + step), float(value)) for step, value in stage.get("kl", ())]
    if stage.get("kl_at_end") is not None and (not points or points[-1][0] < begin + stage["steps"]):
        points.append((float(begin + stage["steps"]), float(stage["kl_at_end"])))
    return points
