"""Margins: how much better the better response is; and what goes with being the better one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np

from hf_align.data.inspection import bias, language
from hf_align.data.inspection.bias import Bias
from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.histogram import histogram
from hf_align.data.inspection.language import Languages
from hf_align.data.inspection.margin import Margin
from hf_align.data.inspection.records import Check, Context, Record

SMALL_MARGIN = Kind(
    "small_margin",
    "margins",
    "warning",
    "Nearly a tie: drop the rows, ask more people, or let the margin weight them (margin_mode='weight').",
)


class Margins:
    """Finds rows whose better response is hardly better."""

    def __init__(self, context: Context) -> None:
        self._least = context.min_margin
        self._margin = Margin(context.columns)
        self._rows, self._values = array("q"), array("d")

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        if self._margin.source:
            for record in records:
                if record.read is not None:
                    self._rows.append(record.number)
                    self._values.append(self._margin.of(record))

    def finish(self) -> Found:
        """Distribution of the margins, and the small ones."""
        margins = np.array(self._values)
        known = np.isfinite(margins)
        values = margins[known]
        if not len(values):
            return Found({"margins": None})
        small = np.array(self._rows)[known][values < self._least].tolist()
        source = self._margin.source
        low, median, high = np.percentile(values, [25, 50, 75]).tolist()
        metrics = {
            "source": source,
            "rows": len(values),
            "mean": float(values.mean()),
            "std": float(values.std()),
            "quartiles": [low, median, high],
            "least": self._least,
            "clear_share": 1 - len(small) / len(values),
            "histogram": histogram(values),
        }
        if not small:
            return Found({"margins": metrics})
        share = f"{len(small):,} of {len(values):,} rows have a margin below {self._least:g}"
        message = f"{share} ({source}; median {median:.3g})."
        return Found({"margins": metrics}, [SMALL_MARGIN.found(small, message)])


KINDS = (SMALL_MARGIN, *bias.KINDS, *language.KINDS)
CHECKS: tuple[Callable[[Context], Check], ...] = (Margins, Bias, Languages)
