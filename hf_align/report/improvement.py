"""Rounds of self-improvement as a page and as a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hf_align.report.charts.curves import Curve, curve_chart
from hf_align.report.figures import decimal, ends, percent
from hf_align.report.render import render_page

Figures = Mapping[str, Any]
REASONS = {
    "falls": "stopped: by the held-out measure, round {round} is worse than the best policy before it",
    "outruns": (
        "stopped: in round {round} the training judge's win rate rose, and the held-out judge saw significantly less "
        "than {share} of that gain"
    ),
    "no_pairs": "ended in round {round}, where no two responses to a prompt got different scores",
    "rounds": "ended after the last round, {round}",
}
COLUMNS = (
    *("round", "pairs", "anchored", "ties", "training judge", "held-out judge", "over the best", "judge and people"),
    *("tokens", "distinct-2", "KL"),
)


def stop_sentence(content: Figures) -> str:
    """Why rounds ended."""
    stopped = content["stopped"]
    if stopped is None:
        return "not finished"
    share = percent(content["rule"]["gain_share"], 0)
    return REASONS[stopped["reason"]].format(round=stopped["round"], share=share)


def best_sentence(content: Figures) -> str:
    """Which policy is left."""
    if not content["best"]:
        return "No round's policy was better than the start on held-out data, which stays the best one."
    return f"The policy of round {content['best']} is the best one by the held-out measure."


def improvement_remarks(content: Figures) -> list[str]:
    """What to know before believing the curves."""
    remarks, rule = [], content["rule"]
    first = next((entry["votes"] for entry in content["rounds"] if "votes" in entry), None)
    if first is not None and (first["accuracy_interval"][0] or 0.0) <= 0.5:
        remarks.append(
            "The training's judge agrees with people's labels no better than chance "
            f"({decimal(first['accuracy'])} {ends(first['accuracy_interval'])}): it is not fit for this task."
        )
    errs = f"a run in which nothing goes wrong is stopped in at most {percent(rule['false_stop'], 0)} of cases."
    if rule["detectable_fall"] >= 0.5:
        return [*remarks, f"{rule['units']:,} held-out prompts are too few for the stop rule to see any fall; {errs}"]
    remarks.append(
        f"With {rule['units']:,} held-out prompts, a round whose win rate over the best policy is "
        f"{decimal(0.5 - rule['detectable_fall'])} in truth is stopped with probability .8; {errs}"
    )
    return remarks


def improvement_rows(content: Figures) -> list[list[str]]:
    """A row of figures for the start and each round, under `COLUMNS`."""
    return [_row({"round": 0, **content["start"]}), *map(_row, content["rounds"])]


def _row(entry: Figures) -> list[str]:
    counts, policy = entry.get("pairs") or {}, entry.get("policy") or {}
    votes, verdict = entry.get("votes_after") or entry.get("votes") or {}, entry.get("verdict") or {}
    kl = (policy.get("kl") or {}) if entry["round"] else {"k3": 0.0}
    return [
        str(entry["round"]) if entry["round"] else "start",
        *(str(counts.get(name, "")) for name in ("pairs", "anchored")),
        percent(entry["judging"]["tie_share"], 0) if "judging" in entry else "",
        *(_rate(entry.get(judge), "start") for judge in ("training", "held_out")),
        decimal(verdict["held_out"]) if verdict else "",
        f"{decimal(votes['accuracy'])} {ends(votes['accuracy_interval'])}".rstrip() if votes else "",
        decimal(policy["length"], 1) if policy else "",
        decimal(policy["diversity"]["distinct_2"]) if policy else "",
        decimal(kl["k3"]) if kl else "",
    ]


def _rate(comparisons: Figures | None, other: str) -> str:
    if not comparisons:
        return ""
    rate = comparisons[other]
    return f"{decimal(rate['win_rate'])} {ends(rate['win_rate_interval'])}".rstrip()


def improvement_text(content: Figures) -> str:
    """Sentences and the table for a terminal."""
    table = [list(COLUMNS), *improvement_rows(content)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    said = f"Rounds {stop_sentence(content)}. {best_sentence(content)}"
    return "\n".join([said, *improvement_remarks(content), "", *lines])


def improvement_charts(content: Figures) -> list[Markup]:
    """Win rates over the start by both judges, over the best policy before each round, and what the policies write."""
    colors = {"training": ("training judge", "reward"), "held_out": ("held-out judge", "human")}

    def rates(other: str, first: Sequence[tuple[float, float]]) -> list[Curve]:
        curves = []
        for name, (label, color) in colors.items():
            found = [(entry["round"], entry[name][other]) for entry in content["rounds"] if name in entry]
            points = [*first, *((float(number), rate["win_rate"]) for number, rate in found)]
            band = [(float(number), *rate["win_rate_interval"]) for number, rate in found]
            if found:
                curves.append(Curve(label, color, points, [edge for edge in band if None not in edge]))
        return curves

    charts = [
        curve_chart(rates("start", [(0.0, 0.5)]), title="Win rate over the start", axes=("round", "win rate")),
        curve_chart(rates("best", []), title="Win rate over the best policy before it", axes=("round", "win rate")),
    ]
    entries = [{"round": 0, **content["start"]}, *content["rounds"]]
    for title, axis, of in (
        ("Length of held-out responses", "tokens", lambda entry: entry["policy"]["length"]),
        ("Share of different pairs of words", "distinct-2", lambda entry: entry["policy"]["diversity"]["distinct_2"]),
        ("KL from the start", "nats a response", lambda entry: (entry["policy"]["kl"] or {"k3": 0.0})["k3"]),
    ):
        points = [(float(entry["round"]), of(entry)) for entry in entries if "policy" in entry]
        known = [(x, math.nan if y is None else float(y)) for x, y in points]
        charts.append(curve_chart([Curve("policy", "dpo", known)], title=title, axes=("round", axis)))
    return charts


def render_improvement(content: Figures) -> str:
    """Render the page.

    Args:
        content: Content of rounds.json.

    Returns:
        HTML; names are escaped.
    """
    return render_page(
        "improvement.html.j2",
        sentence=f"Rounds {stop_sentence(content)}. {best_sentence(content)}",
        remarks=improvement_remarks(content),
        content=content,
        charts=improvement_charts(content),
        columns=COLUMNS,
        rows=improvement_rows(content),
    )
