"""What a section of a report consists of. The terminal and the page show the same sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hf_align.report.figures import Metrics

Grade = Literal["good", "fair", "bad", ""]
"""Of a section: "" if it can't be graded."""


@dataclass(frozen=True)
class Table:
    """A table of one text column followed by columns of figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Content:
    """What a section shows below its heading.

    Attributes:
        sentence: What its figures mean and whether they are good; why it is empty, if it is.
        grade: The judgement.
        figure: The main figure with its interval; "" if it is empty.
        tables: Its tables.
        note: How it was measured.
        label: The judgement in other words; "" for the grade itself.
    """

    sentence: str
    grade: Grade = ""
    figure: str = ""
    tables: Sequence[Table] = ()
    note: str = ""
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Section(Content):
    """One section.

    Attributes:
        key: Its key in the report's metrics.
        title: Its heading.
        empty: Whether there is nothing to show.
    """

    key: str
    title: str
    empty: bool = False


class Kind(NamedTuple):
    """A section that a kind of report has.

    Attributes:
        title: Its heading.
        build: Makes its content of its figures and of what `build_sections` is given as `context`.
        missing: Why it is empty if its figures are missing and the report doesn't say why.
    """

    title: str
    build: Callable[[Any, Metrics], Content]
    missing: str = "it was not measured"


def build_sections(
    kinds: Mapping[str, Kind], metrics: Metrics, context: Metrics, reasons: Mapping[str, str]
) -> list[Section]:
    """The sections of a report in the order of `kinds`, with empty ones in the place of missing figures.

    Args:
        kinds: The sections by key.
        metrics: The report's metrics, by key.
        context: What `Kind.build` gets beside a section's figures.
        reasons: Why figures are missing, by key.
    """
    sections = []
    for key, (title, build, missing) in kinds.items():
        empty = not metrics.get(key)
        content = Content(f"Empty: {reasons.get(key, missing)}.") if empty else build(metrics[key], context)
        sections.append(Section(**vars(content), key=key, title=title, empty=empty))
    return sections
