"""The answer that stands on top of a report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hf_align.report.sections import Grade, Section


@dataclass(frozen=True)
class Verdict:
    """A report's answer.

    Attributes:
        grade: "good", "fair" or "bad"; "" if nothing could be graded.
        title: The answer.
        sentence: What was checked, and what it is based on.
    """

    grade: Grade
    title: str
    sentence: str


def names_by_grade(sections: Sequence[Section]) -> dict[str, list[str]]:
    """Names of the graded sections by grade."""
    names: dict[str, list[str]] = {"bad": [], "fair": [], "good": []}
    for section in sections:
        if section.grade:
            names[section.grade].append(short_title(section))
    return names


def say_grades(sections: Sequence[Section], ungraded: Collection[str]) -> str:
    """What failed, is fair and is good, and what was not checked; sections `ungraded` never are."""
    names = names_by_grade(sections)
    unknown = unchecked(sections, ungraded)
    parts = [f"{label}: {', '.join(names[grade])}." for grade, label in _LABELS.items() if names[grade]]
    return " ".join([*parts, *([f"Not checked: {', '.join(unknown)}."] if unknown else [])])


def unchecked(sections: Sequence[Section], ungraded: Collection[str]) -> list[str]:
    """Names of the sections without a grade, but for `ungraded`."""
    return [short_title(section) for section in sections if not section.grade and section.key not in ungraded]


def short_title(section: Section) -> str:
    """A section's title within a sentence."""
    return section.title.partition(" (")[0].lower()


_LABELS = {"bad": "Failed", "fair": "Fair", "good": "Good"}
