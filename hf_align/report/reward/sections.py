"""The sections of a report on a reward model, with what is said where one is empty."""

from __future__ import annotations

from hf_align.report.figures import Metrics, percent
from hf_align.report.reward.agreement import accuracy, best_of_n, subsets, tau, worst_rows
from hf_align.report.reward.confidence import calibration, uncertainty
from hf_align.report.reward.style import length, robustness
from hf_align.report.sections import Kind, Section, Table, build_sections

OF_ENSEMBLES = ("uncertainty",)
"""Sections that a single model doesn't have."""
SECTIONS = {
    "accuracy": Kind(
        "Accuracy",
        accuracy,
        "no two responses can be compared",
    ),
    "tau": Kind(
        "Rank agreement (Kendall's tau)",
        tau,
        "no prompt has a ranking, scores or ratings of its responses; for pairs, tau is 2 x accuracy - 1",
    ),
    "calibration": Kind(
        "Calibration",
        calibration,
        "there are no pairs whose probability could be right or wrong",
    ),
    "robustness": Kind(
        "Robustness",
        robustness,
        "scores were given instead of a model, so no changed text could be scored",
    ),
    "length": Kind(
        "Length and style",
        length,
        "there are no pairs whose lengths could differ",
    ),
    "subsets": Kind(
        "Subsets",
        subsets,
        "the rows have no column subset or domain, so all of them are one set",
    ),
    "best_of_n": Kind(
        "Best of n",
        best_of_n,
        "no prompt has several responses that people or a judge scored; give a judge, or rows with several "
        "responses to a prompt",
    ),
    "worst_rows": Kind(
        "The worst rows",
        worst_rows,
        "it orders every decided pair as people do",
    ),
    "uncertainty": Kind(
        "Uncertainty (does it know where it errs?)",
        uncertainty,
        "only an ensemble has members that can disagree",
    ),
}


def sections_of(metrics: Metrics, facts: Metrics) -> list[Section]:
    """All sections, in the report's order."""
    kinds = {key: kind for key, kind in SECTIONS.items() if key in metrics or key not in OF_ENSEMBLES}
    return build_sections(kinds, metrics, facts, facts.get("missing", {}))


def benchmark_table(benchmark: Metrics) -> Table:
    """A public benchmark's figures by its own formula."""
    return Table(("", "score"), [[name, percent(value)] for name, value in benchmark["table"]])
