"""The page of a report on a reward model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hf_align.report.charts.curves import Curve, curve_chart
from hf_align.report.charts.intervals import Interval, interval_chart
from hf_align.report.figures import Metrics, decimal, percent
from hf_align.report.render import minus, render_page
from hf_align.report.reward.confidence import MEASURES
from hf_align.report.reward.sections import benchmark_table, sections_of
from hf_align.report.reward.verdict import TO_READ, shown_facts, verdict_of
from hf_align.report.section_page import GRADES, bar, charts_of, known, shortened

MOST_BARS = 24
"""Subsets drawn; the table has all."""
METHOD = f"{GRADES} Intervals are 95% bootstrap intervals."


def render_reward_report(metrics: Metrics, facts: Metrics, remarks: Sequence[Any]) -> str:
    """Render the page.

    Args:
        metrics: The report's metrics.
        facts: Its facts.
        remarks: (kind, sentence) pairs.

    Returns:
        HTML. Text from models and data sets is escaped.
    """
    sections = sections_of(metrics, facts)
    return render_page(
        "reward.html.j2",
        name=facts.get("model") or "a reward model",
        facts=facts,
        shown_facts=shown_facts(facts),
        verdict=verdict_of(sections, remarks),
        remarks=remarks,
        sections=sections,
        charts=charts_of(sections, metrics, CHARTS),
        worst=[_worst(row) for row in metrics.get("worst_rows") or ()],
        benchmark=facts.get("benchmark"),
        benchmark_table=benchmark_table,
        method=METHOD,
        to_read=TO_READ,
    )


def _accuracy(figures: Metrics) -> list[Markup]:
    bars = [bar("model", figures, "accuracy", "reward")]
    if figures["vote_agreement"] < 1:
        bars.append(bar("single votes", figures, "vote_agreement", "human"))
    if not known(figures["accuracy"]):
        return []
    bars.append(Interval("chance", "base", 50, None))
    charts = [interval_chart([("", bars)], title="Pairs ordered as people do, %, 95% intervals", digits=1, origin=50)]
    people = {name: part for name, part in (figures.get("people") or {}).items() if known(part["r"])}
    if people:
        groups = [
            (
                name,
                [
                    bar("model", part, "r", "reward", 1),
                    *([Interval("one person", "human", part["human_r"], None)] if part.get("human_r") else []),
                ],
            )
            for name, part in people.items()
        ]
        charts.append(interval_chart(groups, title="Correlation r with the mean of many people"))
    return charts


def _calibration(figures: Metrics) -> list[Markup]:
    raw, fitted = figures["raw"]["bins"], (figures["fitted"] or {}).get("bins", [])
    band = [(part["predicted"], *part["expected"]) for part in raw]
    curves = [Curve("as it is", "reward", _reliability(raw), band)]
    if fitted:
        curves.append(Curve("after the temperature", "dpo", _reliability(fitted)))
    chart = curve_chart(
        curves,
        title="Reliability: share of votes for a response by predicted probability",
        axes=("predicted probability", "share of votes"),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal="right (band: what chance allows)",
    )
    return [chart]


def _reliability(bins: Sequence[Metrics]) -> list[tuple[float, float]]:
    return [(part["predicted"], part["observed"]) for part in bins]


def _robustness(figures: Metrics) -> list[Markup]:
    changes = sorted(figures["changes"], key=lambda change: -change["drop"])
    bars = [bar(change["name"].replace("_", " "), change, "drop", "reward") for change in changes]
    if not bars or not all(known(bar.value) for bar in bars):
        return []
    return [interval_chart([("", bars)], title="Accuracy lost, percentage points, 95% intervals", digits=1)]


def _length(figures: Metrics) -> list[Markup]:
    bars = [
        bar(label, figures, name, color, 1)
        for label, name, color in (("model", "reward", "reward"), ("people", "people", "human"))
        if known(figures[name])
    ]
    parts = [
        bar(minus(f"{part['low']:+.0f} to {part['high']:+.0f}"), part, "accuracy", "reward")
        for part in figures["parts"]
    ]
    charts = [interval_chart([("", bars)], title="Correlation with length, within pairs")] if bars else []
    if parts:
        charts.append(
            interval_chart(
                [("", parts)], title="Pairs ordered right, %, by length of better minus worse", digits=1, origin=50
            )
        )
    return charts


def _subsets(figures: Metrics) -> list[Markup]:
    bars = [bar(row["name"], row, "accuracy", "reward") for row in figures["subsets"][:MOST_BARS]]
    return [interval_chart([("", bars)], title="Pairs ordered as people do, %, the worst first", digits=1, origin=50)]


def _best_of_n(figures: Metrics) -> list[Markup]:
    curve = figures["curve"]
    picked = [(point["kl"], point["gold"]) for point in curve]
    band = [
        (point["kl"], *point["gold_interval"]) for point in curve if all(known(end) for end in point["gold_interval"])
    ]
    chart = curve_chart(
        [
            Curve("picked by the model", "reward", picked, band),
            Curve("the best there is", "human", [(point["kl"], point["possible"]) for point in curve]),
        ],
        title="Judge's score of the best of n",
        axes=("KL from the policy, nats", "judge's score"),
        marks=[(point["kl"], f"n={point['n']}") for point in curve],
    )
    return [chart]


def _uncertainty(figures: Metrics) -> list[Markup]:
    measures = {measure["name"]: measure for measure in figures["measures"]}
    if not all(known(measure["auroc"]) for measure in measures.values()):
        return []
    shown = [(measures[name], name, label) for name, label in MEASURES.items() if name in measures]
    bars = [bar(label, each, "auroc", "base" if name == "difference" else "reward", 1) for each, name, label in shown]
    errors = [
        (
            label,
            [
                bar("least sure tenth", each, "top_error", "reward"),
                bar("the rest", each, "rest_error", "base"),
            ],
        )
        for each, _, label in shown
        if known(each["top_error"]) and known(each["rest_error"])
    ]
    charts = [interval_chart([("", bars)], title="AUROC of errors by uncertainty, 95% intervals", digits=2, origin=0.5)]
    return charts + ([interval_chart(errors, title="Pairs ordered wrong, %", digits=1)] if errors else [])


CHARTS: Mapping[str, Callable[[Any], list[Markup]]] = {
    "accuracy": _accuracy,
    "calibration": _calibration,
    "robustness": _robustness,
    "length": _length,
    "subsets": _subsets,
    "best_of_n": _best_of_n,
    "uncertainty": _uncertainty,
}


def _worst(row: Metrics) -> dict[str, Any]:
    """A row as the page shows it."""
    numbers = " and ".join(map(str, dict.fromkeys(row["rows"])))
    place = [f"row{'s' if ' and ' in numbers else ''} {numbers}", *([row["subset"]] if row["subset"] else [])]
    place += [f"{percent(row['label'], 0)} of votes for the better one"] if row["label"] < 1 else []
    place += [f"lengths {row['better_length']:.0f} and {row['worse_length']:.0f}"]
    return {
        "place": " · ".join(place),
        "prompt": shortened(row["prompt"]),
        "worse_prompt": shortened(row.get("worse_prompt", "")),
        **{side: shortened(row[side]) for side in ("better", "worse")},
        **{f"{side}_score": decimal(row[f"{side}_score"]) for side in ("better", "worse")},
        **{
            f"{side}_human": "" if row[f"{side}_human"] is None else f", people {decimal(row[f'{side}_human'])}"
            for side in ("better", "worse")
        },
    }
