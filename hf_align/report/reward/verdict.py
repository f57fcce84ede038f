"""Whether a reward model can be trusted, from the sections of its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_align.numbers import plural
from hf_align.report.figures import Metrics
from hf_align.report.sections import Section
from hf_align.report.verdict import Verdict, names_by_grade, say_grades, unchecked

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
TO_READ = ("worst_rows",)
"""Sections that are never graded."""
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


def verdict_of(sections: Sequence[Section], remarks: Sequence[Any]) -> Verdict:
    """Sum up the sections.

    A model that doesn't order responses better than chance is not to be trusted, whatever else holds.

    Args:
        sections: The report's.
        remarks: (kind, sentence) pairs.
    """
    names, unknown = names_by_grade(sections), unchecked(sections, TO_READ)
    checked = sum(map(len, names.values()))
    ordered = next((section for section in sections if section.key == "accuracy"), None)
    useless = any(kind in NOTHING_ELSE_COUNTS for kind, _ in remarks) or (
        ordered is not None and ordered.grade == "bad"
    )
    said = say_grades(sections, TO_READ)
    if not checked:
        return Verdict("", "Nothing could be judged.", said)
    if useless:
        return Verdict("bad", "No: it does not order these responses as people do.", said)
    if names["bad"]:
        return Verdict("bad", f"Not for everything: {plural(len(names['bad']), 'check')} of {checked} failed.", said)
    if names["fair"]:
        return Verdict("fair", f"With care: {len(names['good'])} of {checked} checks are good.", said)
    title = "Yes, as far as this was checked" if unknown else "Yes"
    return Verdict("good", f"{title}: all {checked} checks are good.", said)
