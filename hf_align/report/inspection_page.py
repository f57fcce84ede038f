"""The page of an inspection."""

from __future__ import annotations

from hf_align.report.figures import Metrics
from hf_align.report.inspection_sections import findings_of, rows_text, sections_of, shown_facts, verdict_of
from hf_align.report.render import render_page
from hf_align.report.section_page import shortened

METHOD = (
    "Errors can't be trained on, or teach something wrong; warnings deserve a look before training; notes are worth "
    "knowing. Rows are counted from 0; the JSON lists all of them."
)


def render_inspection(inspection: Metrics) -> str:
    """Render the page.

    Args:
        inspection: `Inspection.to_json()`.

    Returns:
        HTML. Text from data sets is escaped.
    """
    facts = inspection["facts"]
    sections = sections_of(inspection)
    return render_page(
        "inspection.html.j2",
        name=facts.get("data") or "given rows",
        facts=facts,
        shown_facts=shown_facts(facts),
        verdict=verdict_of(inspection),
        remarks=(),
        sections=sections,
        charts={section.key: [] for section in sections},
        found={section.key: findings_of(inspection, section.key) for section in sections},
        rows_text=rows_text,
        shortened=shortened,
        method=METHOD,
        to_read=(),
    )
