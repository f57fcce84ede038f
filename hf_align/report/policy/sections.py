"""The sections of a report on policies: each with a figure, a sentence that says whether it is good, and tables.

The terminal and the page show the same sections. A section's grade is that of the policy that does worst in it.
"""

from __future__ import annotations

from hf_align.report.figures import Metrics
from hf_align.report.policy.change import diversity, kl, length, lost_ability
from hf_align.report.policy.wins import best_and_worst, domains, length_controlled, scores, win_rate
from hf_align.report.sections import Kind, Section, build_sections

SECTIONS = {
    "win_rate": Kind("Win rate", win_rate),
    "length_controlled": Kind("Win rate at equal length", length_controlled),
    "scores": Kind("Scores", scores),
    "kl": Kind("Distance from the reference (KL)", kl),
    "diversity": Kind("Variety", diversity),
    "length": Kind("Length", length),
    "lost_ability": Kind("Lost ability", lost_ability),
    "best_and_worst": Kind("The best and the worst", best_and_worst),
    "domains": Kind("Parts of the data", domains),
}


def policy_sections(metrics: Metrics, facts: Metrics) -> list[Section]:
    """All sections, in the report's order."""
    return build_sections(SECTIONS, metrics, facts, facts.get("missing", {}))
