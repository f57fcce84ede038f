"""What an inspection finds: kinds with their severity and fix, and the rows of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""error: the rows can't be trained on, or teach something wrong; warning: look before training; note: worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One kind of finding and the rows it was met in. Unpacks as (kind, severity, rows, message, fix).

    Attributes:
        kind: Its name, such as "identical_responses".
        severity: See `Severity`.
        rows: Row numbers, from 0, ascending; empty for what concerns the data set as a whole.
        message: One sentence with the figures.
        fix: What to do about it.
        section: Key of the section it belongs to.
        example: The first row's text that shows it, short; "" where there is none.
        drop: Those of `rows` that `Inspection.fixed` leaves out.
        changes: New values of columns, by row number, that `Inspection.fixed` puts in.
    """

    kind: str
    severity: Severity
    rows: Sequence[int]
    message: str
    fix: str
    section: str
    example: str = ""
    drop: Sequence[int] = ()
    changes: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.kind, self.severity, self.rows, self.message, self.fix))


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        name: Such as "identical_responses".
        section: Key of its section.
        severity: See `Severity`.
        fix: What to do about it, an imperative.
    """

    name: str
    section: str
    severity: Severity
    fix: str

    def found(
        self,
        rows: Sequence[int],
        message: str,
        *,
        example: str = "",
        drop: Sequence[int] = (),
        changes: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> Finding:
        """The finding of this kind; see `Finding`."""
        return Finding(
            self.name,
            self.severity,
            rows,
            message,
            self.fix,
            self.section,
            example,
            drop,
            {} if changes is None else changes,
        )


@dataclass
class Found:
    """What one check hands back.

    Attributes:
        metrics: Figures of its section, as JSON has them.
        findings: Its findings.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
