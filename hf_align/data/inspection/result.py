"""What `inspect_preferences` found, and the rows without it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, Features

from hf_align.data.inspection.findings import Finding
from hf_align.data.inspection.repair import changed_rows, dropped_rows, log_of, repaired, repaired_raw
from hf_align.data.inspection.valid import Verdicts
from hf_align.data.sinks import Source, check_out, write_rows, write_text_rows
from hf_align.files import finite, whole_file
from hf_align.report.inspection_page import render_inspection
from hf_align.report.inspection_text import inspection_text
from hf_align.report.shown import Shown


@dataclass
class Inspection(Shown):
    """Findings and figures of a preference data set. `str` of it is for a terminal; a notebook shows the page.

    Attributes:
        findings: What was found, by section and severity. Each unpacks as (kind, severity, rows, message, fix).
        metrics: Figures by section, in the page's order: "size", "defects", "duplicates", "contradictions", "splits",
            "agreement" and "margins".
        facts: What was inspected and how: "rows", "columns", "layout", "converted" (the sentence that says what
            `to_preferences` recognised; "" where nothing had to be converted), "tokenizer", "max_length",
            "max_prompt_length", "eval_rows", "seed" and "versions".
        rows: The rows whose numbers the findings give.

    Example:
        >>> from hf_align.data import inspect_preferences
        >>> rows = [
        ...     {"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."},
        ...     {"prompt": "The film was", "chosen": " fine.", "rejected": " fine."},
        ... ]
        >>> inspection = inspect_preferences(rows)
        >>> inspection.save("inspection.html")
        >>> inspection.facts["rows"]
        2
    """

    findings: list[Finding]
    metrics: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    rows: Dataset = field(repr=False)

    @property
    def errors(self) -> int:
        """Number of findings of severity "error"."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of findings of severity "warning"."""
        return sum(finding.severity == "warning" for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    @property
    def valid(self) -> Verdicts:
        """(valid, reason) of each row: people agree, the margin is large enough, no error and no duplicate."""
        least = {"low_agreement": self.facts["min_agreement"], "small_margin": self.facts["min_margin"]}
        return Verdicts(self.findings, len(self.rows), least)

    def fixed(self) -> Dataset:
        """The rows without those that can't be trained on or are there twice, and with the sure repairs.

        Every finding's `drop` and `changes` are applied; `log` lists them row by row. Nothing is changed in place.
        """
        return repaired(self.rows, self.findings)

    def write_fixed(
        self, out: str | os.PathLike[str], *, source: Source | None = None, overwrite: bool = False
    ) -> Path:
        """Write the rows of `fixed` to a file or folder and `log` beside it, in `OUT-log.jsonl`; each appears whole.

        Args:
            out: A .jsonl, .parquet or .csv file, or a folder.
            source: The file that the rows were read from: where `out` has the same text format and nothing was
                converted, its rows are copied as they stand.
            overwrite: Replace what is there.

        Returns:
            The log's path.

        Raises:
            UserError: One of the two is there already, or can't be written.
        """
        log = log_file(out)
        check_out(Path(out), self.rows.features, overwrite=overwrite)
        check_out(log, Features({}), overwrite=overwrite)
        raw = None if source is None or self.facts["converted"] else source.raw(Path(out).suffix.lower())
        with whole_file(log) as unfinished:  # appears when the rows are there
            write_text_rows(self.iter_log(), unfinished)
            if raw is None:
                write_rows(self.fixed(), Path(out))
            else:
                write_text_rows(repaired_raw(raw, self.rows, self.findings), Path(out))
        return log

    def iter_log(self) -> Iterator[dict[str, Any]]:
        """As `log`, row by row, for data sets of which much is dropped."""
        return log_of(self.rows, self.findings)

    @property
    def log(self) -> list[dict[str, Any]]:
        """What `fixed` does to each row that it drops or changes.

        Returns:
            In order of the rows, for each "row" (its number), "action" ("dropped" or "changed"), "kinds" (of the
            findings that ask for it), "old" (the row, or the columns that change) and "new" (their values; None for a
            dropped row).
        """
        return list(self.iter_log())

    def to_json(self) -> dict[str, Any]:
        """Facts, metrics and findings with all row numbers, as JSON has them."""
        dropped = dropped_rows(self.findings)
        fixed = {"dropped": len(dropped), "changed": len(changed_rows(self.findings) - dropped)}
        severities = Counter(finding.severity for finding in self.findings)
        return finite(
            {
                "facts": self.facts,
                "ok": self.ok,
                "counts": {name: severities[name] for name in ("error", "warning", "note")},
                "fixed": fixed,
                "findings": list(map(_as_json, self.findings)),
                "metrics": self.metrics,
            }
        )

    def to_html(self) -> str:
        """The page; texts of the data are escaped."""
        return render_inspection(self.to_json())

    def to_text(self, width: int) -> str:
        """The inspection for a terminal of this width."""
        return inspection_text(self.to_json(), width)


def log_file(out: str | os.PathLike[str]) -> Path:
    """Where the log of a clean data set is written."""
    path = Path(out)
    return path.with_name(f"{path.stem if path.suffix else path.name}-log.jsonl")


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "section": finding.section,
        "message": finding.message,
        "fix": finding.fix,
        "example": finding.example,
        "rows": _numbers(finding.rows),
        "drop": _numbers(finding.drop),
        "changes": _numbers(finding.changes),
    }


def _numbers(rows: Sequence[int] | Mapping[int, Any]) -> list[int]:
    return list(map(int, rows))
