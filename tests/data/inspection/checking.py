"""One check of an inspection over rows of a test."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from datasets import Dataset

from hf_align.data.inspection.findings import Finding, Found
from hf_align.data.inspection.records import Check, Context, record_of, records_of


def found_by(check: Callable[[Context], Check], rows: Sequence[dict[str, Any]], **options: Any) -> Found:
    """What the check finds in the rows; each row has the columns of the first one."""
    data = Dataset.from_list(list(rows))
    context = Context(data.column_names, len(data), lambda numbers: [record_of(n, data[n]) for n in numbers], **options)
    running = check(context)
    for records in records_of(data):
        running.see(records)
    return running.finish()


def by_kind(found: Found) -> dict[str, Finding]:
    """Findings by kind, of which each may occur once."""
    findings = {finding.kind: finding for finding in found.findings}
    assert len(findings) == len(found.findings)
    return findings


def check(rows: Sequence[dict[str, Any]], module: ModuleType, **options: Any) -> Found:
    """What all checks of a section find in the rows."""
    parts = [found_by(one, rows, **options) for one in module.CHECKS]
    metrics = {name: value for part in parts for name, value in part.metrics.items()}
    return Found(metrics, [finding for part in parts for finding in part.findings])


def rows_by_kind(found: Found) -> dict[str, list[int]]:
    """Row numbers by kind of finding, of which each may occur once."""
    return {kind: list(finding.rows) for kind, finding in by_kind(found).items()}
