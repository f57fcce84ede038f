"""Rows that the trainers refuse, in their words, and roles where they don't belong."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from hf_align.collators.checks import describe
from hf_align.collators.labels import weight_problems
from hf_align.collators.rows import ProblemKind
from hf_align.data.inspection.defect_kinds import (
    BAD_NUMBER,
    EMPTY_RESPONSE,
    IDENTICAL,
    MALFORMED,
    MISSING,
    WRONG_ROLES,
)
from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.records import Context, Record
from hf_align.data.inspection.texts import look_at, shortened
from hf_align.data.inspection.turns import begins_with_role, out_of_order

_KINDS: dict[ProblemKind, Kind] = {
    "missing": MISSING,
    "empty_response": EMPTY_RESPONSE,
    "identical_responses": IDENTICAL,
    "bad_number": BAD_NUMBER,
    "malformed": MALFORMED,
    "wrong_roles": WRONG_ROLES,
}
NAMED = "a response that begins with the name of a role"


class Refused:
    """Rows that the trainers refuse, in the words of `collators.find_bad_rows`, and roles out of order or in texts.

    A text that begins with the name of a role is no finding if half of the responses do: then it is the data set's
    format. Messages have none.
    """

    def __init__(self, context: Context) -> None:
        self._rows: dict[ProblemKind, dict[str, list[int]]] = {kind: {} for kind in _KINDS}
        self._examples: dict[ProblemKind, str] = {}
        self._refused: set[int] = set()
        self._named, self._texts, self._shown = array("q"), 0, ""

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        for record in records:
            problems = weight_problems(record.row)
            if record.problem is not None:
                problems.append(record.problem)
            for problem in problems:
                self._add(problem.kind, str(problem), record)
            if record.read is not None:
                self._look(record)

    def finish(self) -> Found:
        """A finding for each kind."""
        if 0 < len(self._named) < max(1, self._texts / 2):
            self._rows["wrong_roles"].setdefault(NAMED, []).extend(self._named)
            self._examples.setdefault("wrong_roles", self._shown)
        findings = []
        for kind, reasons in self._rows.items():
            if reasons:
                reasons = {reason: sorted(set(rows)) for reason, rows in reasons.items()}
                rows = sorted({row for each in reasons.values() for row in each})
                drop = sorted(self._refused & set(rows))
                example = self._examples.get(kind, "")
                findings.append(_KINDS[kind].found(rows, f"{describe(reasons)}.", example=example, drop=drop))
        return Found(findings=findings)

    def _look(self, record: Record) -> None:
        """Roles of a row that can be read."""
        assert record.read is not None
        prompt = record.read.prompt
        if isinstance(prompt, list):
            for response in record.read.responses:
                if isinstance(response, list) and (order := out_of_order(prompt, response)):
                    self._add("wrong_roles", f"a conversation with {order}", record)
                    break
        look = look_at(record)
        self._texts += 1
        if named := next((text for text in look.responses if begins_with_role(text)), None):
            if isinstance(prompt, list):
                self._add("wrong_roles", NAMED, record)
                self._examples["wrong_roles"] = shortened(named)
            else:
                self._named.append(record.number)
                self._shown = self._shown or shortened(named)

    def _add(self, kind: ProblemKind, reason: str, record: Record) -> None:
        rows = self._rows[kind].setdefault(reason, [])
        rows.append(record.number)
        shown = (
            record.responses[0]
            if record.responses
            else next(
                (str(record.row[name]) for name in ("chosen", "rejected", "responses") if record.row.get(name)), ""
            )
        )
        self._examples.setdefault(kind, shortened(shown))
        if record.read is None or kind != "wrong_roles":
            self._refused.add(record.number)
