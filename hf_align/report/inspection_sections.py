"""The sections of an inspection: what was found in each, with figures. The terminal and the page show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_align.report.figures import Grade, Metrics, Section
from hf_align.report.verdict import Verdict

TITLES = {
    "size": "Size and lengths",
    "defects": "Defects of single rows",
    "duplicates": "Duplicates",
    "contradictions": "Contradictions",
    "splits": "Splits and contamination",
    "agreement": "Agreement of people",
    "margins": "Margins, length and style",
}
"""Headings by key, in the page's order."""
SHOWN_ROWS = 20
"""Row numbers shown of a finding; the JSON has all."""
GRADES: dict[str, Grade] = {"error": "bad", "warning": "fair", "note": "good"}
"""How the worst finding of a section grades it; without findings it is good."""


def sections_of(inspection: Metrics) -> list[Section]:
    """The sections.

    Args:
        inspection: `Inspection.to_json()`.
    """
    return [_section(key, title, inspection) for key, title in TITLES.items() if key in inspection["metrics"]]


def findings_of(inspection: Metrics, key: str) -> list[dict[str, Any]]:
    """The findings of a section, in their order."""
    return [finding for finding in inspection["findings"] if finding["section"] == key]


def _section(key: str, title: str, inspection: Metrics) -> Section:
    findings = findings_of(inspection, key)
    worst = findings[0]["severity"] if findings else "note"
    said = f"{say_counts(findings)}." if findings else "Nothing found."
    return Section(key, title, said, GRADES[worst], label=say_counts(findings[:1] and findings, worst))


def say_counts(findings: Sequence[Metrics], only: str | None = None) -> str:
    """Such as "2 errors, 1 warning in 34 rows"; of one severity such as "2 errors", "fine" for none."""
    counts = {name: sum(each["severity"] == name for each in findings) for name in ("error", "warning", "note")}
    if only is not None:
        return plural(counts[only], only) if counts[only] else "fine"
    rows = {row for each in findings for row in each["rows"]}
    said = ", ".join(plural(count, name) for name, count in counts.items() if count)
    return f"{said} in {plural(len(rows), 'row')}" if rows else said


def plural(count: int, noun: str) -> str:
    """Such as "1 row" or "2,000 rows"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def rows_text(finding: Metrics) -> str:
    """A finding's row numbers, the first of them if there are many; "" for the whole data set."""
    rows = finding["rows"]
    shown = ", ".join(map(str, rows[:SHOWN_ROWS]))
    left = len(rows) - SHOWN_ROWS
    return f"{shown} and {left:,} more" if left > 0 else shown


def verdict_of(inspection: Metrics) -> Verdict:
    """Whether to train on the data as it is."""
    counts, fixed, rows = inspection["counts"], inspection["fixed"], inspection["facts"]["rows"]
    bad = {row for each in inspection["findings"] if each["severity"] == "error" for row in each["rows"]}
    parts = [f"{fixed['dropped']:,} of {plural(rows, 'row')} dropped"] * bool(fixed["dropped"])
    parts += [f"{fixed['changed']:,} repaired"] * bool(fixed["changed"])
    repair = f"A fix is at hand: {' and '.join(parts)}." if parts else ""
    if counts["error"]:
        where = f" in {len(bad):,} of {plural(rows, 'row')}" if bad else ""
        return Verdict("bad", f"Not yet: {plural(counts['error'], 'error')}{where}.", repair)
    if counts["warning"]:
        return Verdict("fair", f"With care: no error, {plural(counts['warning'], 'warning')} to look at.", repair)
    return Verdict("good", "Yes: nothing that speaks against training on it.", repair)


def shown_facts(facts: Metrics) -> list[tuple[str, str]]:
    """(label, text) of the facts that stand above the sections."""
    limits = [
        f"{facts[name]:,} tokens of {what}"
        for name, what in (("max_length", "prompt and response"), ("max_prompt_length", "prompt"))
        if facts[name] is not None
    ]
    shown = {
        "data": facts.get("data"),
        "rows": f"{plural(facts['rows'], facts['layout'].removesuffix('s'))}: {', '.join(facts['columns'])}",
        "converted": facts["converted"] and f"{facts['converted']}. Row numbers are those of the converted rows.",
        "tokenizer": facts["tokenizer"],
        "limits": ", ".join(limits),
        "held out": "" if facts["eval_rows"] is None else plural(facts["eval_rows"], "row"),
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
        "command": facts.get("command"),
    }
    return [(label, str(text)) for label, text in shown.items() if text]
