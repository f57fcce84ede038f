"""Whether a reward model can be trusted, from the sections of its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_align.report.reward_figures import Grade, Metrics, Section

FACTS = {
    "model": "model",
    "data": "data",
    "layout": "rows",
    "template": "template",
    "output": "output",
    "judge": "judge",
    "processor": "processor",
    "versions": "versions",
    "command": "command",
}
"""Facts shown above the sections, with their labels."""
NOTHING_ELSE_COUNTS = ("constant_scores",)
"""Kinds of remarks after which no figure means anything."""


def shown_facts(facts: Metrics) -> list[tuple[str, str]]:
    """(label, text) of the facts that stand above the sections."""
    shown = dict(facts)
    if facts.get("versions"):
        shown["versions"] = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    if facts.get("layout"):
        name = (facts.get("benchmark") or {}).get("name", LAYOUTS.get(facts["layout"], facts["layout"]))
        shown["layout"] = f"{name}: {facts['rows']:,} rows, {facts['prompts']:,} prompts, {facts['pairs']:,} pairs"
    return [(label, str(shown[key])) for key, label in FACTS.items() if shown.get(key)]


LAYOUTS = {
    "pairs": "pairs of chosen and rejected",
    "lists": "lists of chosen and rejected",
    "rankings": "rankings",
    "ratings": "rated responses",
}


@dataclass(frozen=True)
class Verdict:
    """The answer to "can one trust it?".

    Attributes:
        grade: "good", "fair" or "bad"; "" if nothing could be graded.
        title: The answer.
        sentence: What was checked, and what it is based on.
    """

    grade: Grade
    title: str
    sentence: str


def verdict_of(sections: Sequence[Section], remarks: Sequence[Any]) -> Verdict:
    """Sum up the sections.

    A model that doesn't order responses better than chance is not to be trusted, whatever else holds.

    Args:
        sections: The report's.
        remarks: (kind, sentence) pairs.
    """
    names: dict[str, list[str]] = {"good": [], "fair": [], "bad": []}
    for section in sections:
        if section.grade:
            names[section.grade].append(_short(section))
    unknown = [_short(section) for section in sections if not section.grade and section.key != "worst_rows"]
    checked = sum(map(len, names.values()))
    ordered = next((section for section in sections if section.key == "accuracy"), None)
    useless = any(kind in NOTHING_ELSE_COUNTS for kind, _ in remarks) or (
        ordered is not None and ordered.grade == "bad"
    )
    parts = [f"{label}: {', '.join(names[grade])}." for grade, label in _LABELS.items() if names[grade]]
    parts += [f"Not checked: {', '.join(unknown)}."] if unknown else []
    if not checked:
        return Verdict("", "Nothing could be judged.", " ".join(parts))
    if useless:
        return Verdict("bad", "No: it does not order these responses as people do.", " ".join(parts))
    if names["bad"]:
        return Verdict("bad", f"Not for everything: {_times(len(names['bad']))} of {checked} failed.", " ".join(parts))
    if names["fair"]:
        return Verdict("fair", f"With care: {len(names['good'])} of {checked} checks are good.", " ".join(parts))
    title = "Yes, as far as this was checked" if unknown else "Yes"
    return Verdict("good", f"{title}: all {checked} checks are good.", " ".join(parts))


_LABELS = {"bad": "Failed", "fair": "Fair", "good": "Good"}


def _times(count: int) -> str:
    return "1 check" if count == 1 else f"{count} checks"


def _short(section: Section) -> str:
    return section.title.partition(" (")[0].lower()
