"""Rows that `augment` made, which nobody judged."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence

from hf_align.data.augment import count_made, made_by
from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.records import Check, Context, Record

MADE_ROWS = Kind(
    "made_rows",
    "splits",
    "note",
    "They are for training only: leave them out of whatever something is measured on.",
)
MADE_ROWS_IN_EVAL = Kind(
    "made_rows_in_eval",
    "splits",
    "error",
    "Split first and augment the part for training: rows that nobody judged measure nothing.",
)


class MadeRows:
    """Counts made rows by the kind that their `source` names, here and in the evaluation set."""

    def __init__(self, context: Context) -> None:
        self._held_out = context.eval_dataset
        self._rows, self._kinds = array("q"), Counter[str]()

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        for record in records:
            if kind := made_by(record.row.get("source")):
                self._rows.append(record.number)
                self._kinds[kind] += 1

    def finish(self) -> Found:
        """Counts, and what is where it shouldn't be."""
        held_out = count_made(self._held_out)
        found = Found({"made": dict(self._kinds), "made_in_eval": held_out})
        if self._rows:
            message = f"{_rows(len(self._rows))} made by augmentation: {_listed(self._kinds)}."
            found.findings.append(MADE_ROWS.found(list(self._rows), message))
        if held_out:
            total = sum(held_out.values())
            message = f"{_rows(total)} made by augmentation in the evaluation set: {_listed(held_out)}."
            found.findings.append(MADE_ROWS_IN_EVAL.found((), message))
        return found


def _rows(count: int) -> str:
    return "1 row was" if count == 1 else f"{count:,} rows were"


def _listed(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count:,} by {kind.replace('_', ' ')}" for kind, count in kinds.items())


KINDS = (MADE_ROWS, MADE_ROWS_IN_EVAL)
CHECKS: tuple[Callable[[Context], Check], ...] = (MadeRows,)
