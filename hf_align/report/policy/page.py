"""The page of a report on policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hf_align.report.charts.intervals import Interval, interval_chart
from hf_align.report.figures import Metrics, decimal
from hf_align.report.policy.compared import label_of
from hf_align.report.policy.sections import policy_sections
from hf_align.report.policy.verdict import TO_READ, policy_verdict, shown_facts
from hf_align.report.render import render_page
from hf_align.report.section_page import GRADES, bar, charts_of, known, shortened

COLORS = ("dpo", "ipo", "ppo", "reward", "human")
"""CSS classes of the policies after the reference, in turn."""
METHOD = (
    f"{GRADES} A section's grade is that of the policy that does worst in it. Intervals are 95% bootstrap intervals."
)


def render_policy_report(metrics: Metrics, facts: Metrics, remarks: Sequence[Any]) -> str:
    """Render the page.

    Args:
        metrics: The report's metrics.
        facts: Its facts.
        remarks: (kind, sentence) pairs.

    Returns:
        HTML. Text from models and data sets is escaped.
    """
    sections = policy_sections(metrics, facts)
    return render_page(
        "policy.html.j2",
        facts=facts,
        labels=[label_of(name, facts) for name in facts["policies"]],
        shown_facts=shown_facts(facts),
        verdict=policy_verdict(metrics, facts, sections, remarks),
        remarks=remarks,
        sections=sections,
        charts=charts_of(sections, metrics, CHARTS, facts),
        to_read=TO_READ,
        lists=[
            (f"{label_of(name, facts)}: {title}", label_of(name, facts), [_shown(row) for row in rows])
            for name, each in (metrics.get("best_and_worst") or {}).items()
            for title, rows in each.items()
        ],
        reference=label_of(facts["reference"], facts),
        method=METHOD,
    )


def _bars(policies: Metrics, facts: Metrics, name: str, scale: float = 1, *, reference: bool = True) -> list[Interval]:
    """A figure of every policy that has it."""
    others = [each for each in facts["policies"] if each != facts["reference"]]
    colors = {each: COLORS[place % len(COLORS)] for place, each in enumerate(others)}
    return [
        bar(label_of(policy, facts), each, name, colors.get(policy, "base"), scale)
        for policy, each in policies.items()
        if name in each and known(each[name]) and (reference or policy in colors)
    ]


def _chart(bars: Sequence[Interval], title: str, digits: int = 2, origin: float = 0.0) -> list[Markup]:
    return [interval_chart([("", bars)], title=title, digits=digits, origin=origin)] if bars else []


def _rates(figures: Metrics, facts: Metrics, name: str, title: str) -> list[Markup]:
    """Win rates by every judge."""
    judges = {facts["judge"]: figures["policies"], **figures["others"]}
    groups = [(judge, _bars(policies, facts, name, 100)) for judge, policies in judges.items()]
    groups = [(judge if len(judges) > 1 else "", bars) for judge, bars in groups if bars]
    return [interval_chart(groups, title=title, digits=1, origin=50)] if groups else []


def _diversity(figures: Metrics, facts: Metrics) -> list[Markup]:
    groups = [
        (label, _bars(figures["policies"], facts, name))
        for label, name in (("distinct-1", "distinct_1"), ("distinct-2", "distinct_2"), ("distinct-3", "distinct_3"))
    ]
    groups = [(label, bars) for label, bars in groups if bars]
    return [interval_chart(groups, title="Share of different n-grams", digits=2)] if groups else []


def _kl(figures: Metrics, facts: Metrics) -> list[Markup]:
    groups = [(kind, _bars(figures["policies"], facts, kind)) for kind in ("k1", "k3")]
    groups = [(kind, bars) for kind, bars in groups if bars]
    return [interval_chart(groups, title="KL from the reference, nats a response")] if groups else []


def _domains(figures: Metrics, facts: Metrics) -> list[Markup]:
    groups = [(part, _bars(each["policies"], facts, "win_rate", 100)) for part, each in figures.items()]
    return [interval_chart(groups, title="Win rate, %, 95% intervals", digits=1, origin=50)]


CHARTS: Mapping[str, Callable[[Any, Metrics], list[Markup]]] = {
    "win_rate": lambda figures, facts: _rates(figures, facts, "win_rate", "Win rate, %, 95% intervals"),
    "length_controlled": lambda figures, facts: _rates(
        figures, facts, "length_controlled", "Win rate at equal length, %, 95% intervals"
    ),
    "scores": lambda figures, facts: _chart(_bars(figures["policies"], facts, "score"), "Judge's score, 95% intervals"),
    "kl": _kl,
    "diversity": _diversity,
    "length": lambda figures, facts: _chart(_bars(figures["policies"], facts, "tokens"), "Tokens of a response", 1),
    "lost_ability": lambda figures, facts: _chart(
        _bars(figures["policies"], facts, "increase", reference=False), "More nats for text by people", 3
    ),
    "domains": _domains,
}


def _shown(row: Metrics) -> dict[str, Any]:
    """A prompt as the page shows it."""
    part = "" if row["domain"] == "all" else f" · {row['domain']}"
    return {
        "place": f"row {row['row']}{part}",
        **{name: shortened(row[name]) for name in ("prompt", "response", "reference_response")},
        **{name: decimal(row[name]) for name in ("score", "reference_score")},
        "better": row["score"] > row["reference_score"],
    }
