"""An inspection as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from hf_align.report.figures import Metrics
from hf_align.report.inspection_sections import findings_of, rows_text, sections_of, shown_facts, verdict_of
from hf_align.report.section_text import head_lines, section_lines, wrapped


def inspection_text(inspection: Metrics, width: int = 100) -> str:
    """The whole inspection, at most `width` characters wide where tables allow.

    Args:
        inspection: `Inspection.to_json()`.
        width: Characters.
    """
    lines = [*head_lines(verdict_of(inspection), (), shown_facts(inspection["facts"]), width)]
    for number, section in enumerate(sections_of(inspection), start=1):
        lines += ["", *section_lines(number, section, width)]
        for finding in findings_of(inspection, section.key):
            lines += _finding(finding, width)
    return "\n".join(lines)


def _finding(finding: Metrics, width: int) -> Iterator[str]:
    """A finding in four lines or so."""
    yield from wrapped(f"{finding['severity']}: {finding['message']}", width, "      ", "    ")
    if finding["rows"]:
        yield from wrapped(f"rows {rows_text(finding)}", width, "      ", "      ")
    if finding["example"]:
        yield from wrapped(f"such as {finding['example']}", width, "      ", "      ")[:2]
    yield from wrapped(f"fix: {finding['fix']}", width, "      ", "      ")
